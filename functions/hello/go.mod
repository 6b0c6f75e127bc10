module faas-jails/hello

go 1.23
