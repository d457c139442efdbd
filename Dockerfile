# The tracker as a small image: one static binary, nothing else, not as root.
#
#     docker build -t scion-tracker .
#
# For several architectures, each built as it is (QEMU or native nodes; nothing here names one):
#
#     docker buildx build --platform linux/amd64,linux/arm64 -t REGISTRY/scion-tracker --push .
#
# Around a binary that was built outside, as DIR/root/scion-tracker, with the libraries under DIR/root
# that it is linked to, if any:
#
#     docker build --target prebuilt -f Dockerfile -t scion-tracker DIR
#
# The builder is any image with cargo, a C compiler and a shell. Needs no BuildKit.
ARG BUILDER=rust:1-slim-bookworm

FROM scratch AS empty
WORKDIR /empty

FROM scratch AS runtime
# Self-signed certificates are kept here: the one directory that the tracker writes to.
COPY --from=empty --chown=65532:65532 /empty /var/lib/scion-tracker
VOLUME /var/lib/scion-tracker
USER 65532:65532
ENV SCION_TRACKER_DATA_DIR=/var/lib/scion-tracker
# UDP and HTTP; HTTPS and HTTP/3; both over SCION.
EXPOSE 6969/udp 6969/tcp 6443/udp 6443/tcp 31969/udp
# Sees the configuration of the environment, not the flags of the command.
HEALTHCHECK --interval=30s --timeout=5s --start-period=10s CMD ["/scion-tracker", "health"]
ENTRYPOINT ["/scion-tracker"]

FROM runtime AS prebuilt
# The classic builder comes by here in any case: without a root there are only the licences to copy.
COPY LICENSE* roo[t] /

# What decides which libraries are built: manifests without targets, and sources with nothing in them.
FROM ${BUILDER} AS manifests
WORKDIR /all
COPY . .
RUN find . -name Cargo.toml -o -name Cargo.lock | while read -r file; do \
        dir="/manifests/$(dirname "$file")"; \
        mkdir -p "$dir/src" && touch "$dir/src/lib.rs" && echo 'fn main() {}' > "$dir/src/main.rs"; \
        awk '/^\[/ { target = /^\[\[(bin|test|bench|example)\]\]/ } !target' "$file" > "/manifests/$file"; \
    done

FROM ${BUILDER} AS build
# Statically linked, also on glibc. Line tables would make the binary four times as large.
ENV RUSTFLAGS="-C target-feature=+crt-static" \
    CARGO_PROFILE_RELEASE_DEBUG=false \
    CARGO_INCREMENTAL=0
WORKDIR /build
# The libraries are a layer of their own, which stays until a manifest or Cargo.lock changes.
COPY --from=manifests /manifests .
RUN cargo build --release --locked --target "$(rustc --print host-tuple)" --bin scion-tracker
COPY . .
# cargo goes by times of change, and those of the sources are older than those of the empty ones.
RUN find . -path ./target -prune -o -name '*.rs' -exec touch {} + \
    && cargo build --release --locked --target "$(rustc --print host-tuple)" --bin scion-tracker \
    && cp target/*/release/scion-tracker /scion-tracker

FROM runtime AS tracker
COPY LICENSE* /
COPY --from=build /scion-tracker /
