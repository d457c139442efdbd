module github.com/scion-tracker/scion-tracker/scion/local-topology/tests/go-announce

go 1.26.0
