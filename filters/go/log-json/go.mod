module filtergate.example/log-json

go 1.24
