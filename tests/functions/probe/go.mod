module faas-jails/probe

go 1.23
