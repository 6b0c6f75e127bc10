module example.test/called

go 1.21
