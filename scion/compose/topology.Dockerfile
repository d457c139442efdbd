# Builds the local SCION network of scion/local-topology as an image for docker-compose.yml. Build
# it from the top of the repository. ../../Dockerfile explains the steps that both have:
#
#     docker build -f scion/compose/topology.Dockerfile -t scion-local-topology .
#
# The builder is any Debian image with cargo and a C compiler.
ARG BUILDER=rust:1-bookworm

FROM scratch AS empty
WORKDIR /empty

FROM scratch AS runtime
# The network writes its certificates here.
COPY --from=empty --chown=65532:65532 /empty /tmp
COPY LICENSE* /
COPY scion/topologies /topologies
USER 65532:65532
ENTRYPOINT ["/scion-local-topology"]

FROM runtime AS prebuilt
COPY LICENSE* roo[t] /

FROM ${BUILDER} AS manifests
WORKDIR /all
COPY . .
RUN find . -name Cargo.toml -o -name Cargo.lock | while read -r file; do \
        dir="/manifests/$(dirname "$file")"; \
        mkdir -p "$dir/src" && touch "$dir/src/lib.rs" && echo 'fn main() {}' > "$dir/src/main.rs"; \
        awk '/^\[/ { target = /^\[\[(bin|test|bench|example)\]\]/ } !target' "$file" > "/manifests/$file"; \
    done

FROM ${BUILDER} AS build
RUN apt-get update && apt-get install -y --no-install-recommends cmake g++ git libclang-dev
ENV RUSTFLAGS="-C target-feature=+crt-static" \
    CARGO_INCREMENTAL=0
WORKDIR /build
COPY --from=manifests /manifests .
# This is its own workspace. It depends on the tracker.
RUN cd scion/local-topology && cargo build --release --locked --target "$(rustc --print host-tuple)"
COPY . .
RUN find . -name target -prune -o -name '*.rs' -exec touch {} + \
    && cd scion/local-topology \
    && cargo build --release --locked --target "$(rustc --print host-tuple)" \
    && cp target/*/release/scion-local-topology /scion-local-topology

FROM runtime AS topology
COPY --from=build /scion-local-topology /
