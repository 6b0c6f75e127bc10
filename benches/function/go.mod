module faas-jails/benches/function

go 1.23
