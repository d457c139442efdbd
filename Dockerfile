# Builds the tracker as a small image: one static binary, its licences and the certificates of public
# authorities (for databases over TLS), not run as root. The binary has all stores for records.
#
#     docker build -t scion-tracker .
#
# For several architectures, each built natively or with QEMU:
#
#     docker buildx build --platform linux/amd64,linux/arm64 -t REGISTRY/scion-tracker --push .
#
# With a binary built elsewhere as DIR/root/scion-tracker, and the libraries it is linked to under
# DIR/root:
#
#     docker build --target prebuilt -f Dockerfile -t scion-tracker DIR
#
# The builder is any image with cargo, a C compiler and a shell. BuildKit is not needed.
ARG BUILDER=rust:1-slim-bookworm

FROM scratch AS empty
WORKDIR /empty

FROM scratch AS runtime
# The only directory that the tracker writes to. Self-signed certificates are kept here.
COPY --from=empty --chown=65532:65532 /empty /var/lib/scion-tracker
VOLUME /var/lib/scion-tracker
USER 65532:65532
ENV SCION_TRACKER_DATA_DIR=/var/lib/scion-tracker
# UDP and HTTP, HTTPS and HTTP/3, and both over SCION.
EXPOSE 6969/udp 6969/tcp 6443/udp 6443/tcp 31969/udp
# The health check uses the configuration of the environment, but not the flags of the command.
HEALTHCHECK --interval=30s --timeout=5s --start-period=10s CMD ["/scion-tracker", "health"]
ENTRYPOINT ["/scion-tracker"]

FROM runtime AS prebuilt
# The classic builder also builds this stage for other targets. Then there is no root/, and only the
# licences are copied.
COPY LICENSE* roo[t] /

# The inputs of the dependency build: manifests without targets, and empty sources.
FROM ${BUILDER} AS manifests
WORKDIR /all
COPY . .
RUN find . -name Cargo.toml -o -name Cargo.lock | while read -r file; do \
        dir="/manifests/$(dirname "$file")"; \
        mkdir -p "$dir/src" && touch "$dir/src/lib.rs" && echo 'fn main() {}' > "$dir/src/main.rs"; \
        awk '/^\[/ { target = /^\[\[(bin|test|bench|example)\]\]/ } !target' "$file" > "/manifests/$file"; \
    done

FROM ${BUILDER} AS build
# Links statically, also with glibc. Line tables would make the binary four times as large.
ENV RUSTFLAGS="-C target-feature=+crt-static" \
    CARGO_PROFILE_RELEASE_DEBUG=false \
    CARGO_INCREMENTAL=0
WORKDIR /build
# The dependencies have their own layer, which is rebuilt only when a manifest or Cargo.lock
# changes.
COPY --from=manifests /manifests .
RUN cargo build --release --locked --features mysql,postgres --target "$(rustc --print host-tuple)" --bin scion-tracker
COPY . .
# cargo compares modification times, and the sources are older than the empty ones.
RUN find . -path ./target -prune -o -name '*.rs' -exec touch {} + \
    && cargo build --release --locked --features mysql,postgres --target "$(rustc --print host-tuple)" --bin scion-tracker \
    && cp target/*/release/scion-tracker /scion-tracker
# The builder may have no certificates of authorities: then the image has an empty file.
RUN mkdir -p /certs && cp -L /etc/ssl/certs/ca-certificates.crt /certs/ || touch /certs/ca-certificates.crt

FROM runtime AS tracker
COPY LICENSE* /
COPY --from=build /certs /etc/ssl/certs
COPY --from=build /scion-tracker /
