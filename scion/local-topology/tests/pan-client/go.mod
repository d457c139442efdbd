module github.com/scion-tracker/scion-tracker/scion/local-topology/tests/pan-client

go 1.26.0

require (
	github.com/netsec-ethz/scion-apps v0.5.0
	github.com/quic-go/quic-go v0.65.0
	github.com/scion-tracker/scion-tracker/scion/local-topology/tests/go-announce v0.0.0
	github.com/scionproto/scion v0.6.1-0.20210929154253-764d6e2afe47
	inet.af/netaddr v0.0.0-20210903134321-85fa6c94624e
)

require (
	github.com/antlr/antlr4 v0.0.0-20181218183524-be58ebffde8e // indirect
	github.com/beorn7/perks v1.0.1 // indirect
	github.com/britram/borat v0.0.0-20181011130314-f891bcfcfb9b // indirect
	github.com/cespare/xxhash/v2 v2.1.1 // indirect
	github.com/dchest/cmac v0.0.0-20150527144652-62ff55a1048c // indirect
	github.com/go-kit/kit v0.10.0 // indirect
	github.com/go-stack/stack v1.8.0 // indirect
	github.com/golang/protobuf v1.5.2 // indirect
	github.com/google/gopacket v1.1.16-0.20190123011826-102d5ca2098c // indirect
	github.com/grpc-ecosystem/go-grpc-middleware v1.0.1-0.20190118093823-f849b5445de4 // indirect
	github.com/grpc-ecosystem/go-grpc-prometheus v1.2.0 // indirect
	github.com/grpc-ecosystem/grpc-opentracing v0.0.0-20180507213350-8e809c8a8645 // indirect
	github.com/inconshreveable/log15 v0.0.0-20180818164646-67afb5ed74ec // indirect
	github.com/lucas-clemente/quic-go v0.23.0 // indirect
	github.com/mattn/go-colorable v0.1.8 // indirect
	github.com/mattn/go-isatty v0.0.12 // indirect
	github.com/matttproud/golang_protobuf_extensions v1.0.1 // indirect
	github.com/netsec-ethz/rains v0.3.0 // indirect
	github.com/opentracing/opentracing-go v1.2.0 // indirect
	github.com/pelletier/go-toml v1.9.3 // indirect
	github.com/prometheus/client_golang v1.7.1 // indirect
	github.com/prometheus/client_model v0.2.0 // indirect
	github.com/prometheus/common v0.10.0 // indirect
	github.com/prometheus/procfs v0.1.3 // indirect
	github.com/quic-go/qpack v0.6.0 // indirect
	github.com/uber/jaeger-client-go v2.29.1+incompatible // indirect
	github.com/uber/jaeger-lib v2.0.0+incompatible // indirect
	go.uber.org/atomic v1.7.0 // indirect
	go.uber.org/multierr v1.6.0 // indirect
	go.uber.org/zap v1.17.0 // indirect
	golang.org/x/crypto v0.54.0 // indirect
	golang.org/x/net v0.56.0 // indirect
	golang.org/x/sys v0.47.0 // indirect
	golang.org/x/text v0.40.0 // indirect
	google.golang.org/genproto v0.0.0-20210602131652-f16073e35f0c // indirect
	google.golang.org/grpc v1.38.1 // indirect
	google.golang.org/protobuf v1.26.0 // indirect
	gopkg.in/yaml.v2 v2.4.0 // indirect
)

// The versions that scion-apps asks for stop with Go 1.26.
require (
	go4.org/intern v0.0.0-20230525184215-6c62f75575cb // indirect
	go4.org/unsafe/assume-no-moving-gc v0.0.0-20231121144256-b99613f794b6 // indirect
)

// As in go.mod of scion-apps v0.5.0.
replace github.com/scionproto/scion => github.com/netsec-ethz/scion v0.6.1-0.20211105095954-71d7a8c0af81

// v0.23.0 does not compile with Go 1.18 and later.
replace github.com/lucas-clemente/quic-go => ./old-quic

// The same module under the name of its repository: not every module proxy has it under the other one.
replace inet.af/netaddr => github.com/inetaf/netaddr v0.0.0-20210903134321-85fa6c94624e

replace github.com/scion-tracker/scion-tracker/scion/local-topology/tests/go-announce => ../go-announce
