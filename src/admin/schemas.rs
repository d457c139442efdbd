//! Parts of the description that types do not say by themselves.

use utoipa::openapi::schema::{
    AnyOfBuilder, ArrayBuilder, KnownFormat, ObjectBuilder, SchemaFormat, Type,
};
use utoipa::openapi::{RefOr, Schema};

/// The longest time that something can be valid, in seconds: some 3000 years, so that every sum of times fits
/// a database.
pub(super) const LONGEST: u64 = 100_000_000_000;

const IPV4: &str = r"(25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])(\.(25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])){3}";

fn format(format: KnownFormat) -> Schema {
    ObjectBuilder::new()
        .schema_type(Type::String)
        .format(Some(SchemaFormat::KnownFormat(format)))
        .into()
}

fn pattern(pattern: String) -> Schema {
    ObjectBuilder::new()
        .schema_type(Type::String)
        .pattern(Some(pattern))
        .into()
}

/// An address, or a network without bits beyond its prefix, in their usual forms.
fn address_or_network() -> AnyOfBuilder {
    const BYTE: &str = "(25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])";
    AnyOfBuilder::new()
        .item(format(KnownFormat::Ipv4))
        .item(format(KnownFormat::Ipv6))
        .item(pattern(format!(
            r"^({BYTE}\.0\.0\.0/8|{BYTE}\.{BYTE}\.0\.0/16|{BYTE}\.{BYTE}\.{BYTE}\.0/24|{IPV4}/32)$"
        )))
        .item(pattern(
            "^([0-9a-f]{1,4}:){2}:/(12[0-8]|1[01][0-9]|[4-9][0-9]|3[2-9])$".into(),
        ))
}

/// An address, a network, or a SCION host.
pub(super) fn ban_target() -> RefOr<Schema> {
    let all = address_or_network()
        .item(pattern(format!(
            "^[1-9][0-9]{{0,3}}-([1-9][0-9]{{0,8}}|[1-9a-f][0-9a-f]{{0,3}}:[0-9a-f]{{1,4}}:[0-9a-f]{{1,4}}),{IPV4}$"
        )))
        .description(Some(
            "An address, a network, or a SCION host as in \"1-ff00:0:110,10.0.0.1\". Of an IPv6 address the whole /64 is banned. Also networks in other forms than these are taken, if no bit beyond their prefix is set.",
        ));
    all.into()
}

/// Most entries of a list of rules.
const RULES: usize = 10_000;

/// A list of networks.
pub(super) fn networks() -> RefOr<Schema> {
    let network = address_or_network().description(Some(
        "An address, or a network. Also networks in other forms than these are taken, if no bit beyond their prefix is set.",
    ));
    ArrayBuilder::new()
        .items(network)
        .max_items(Some(RULES))
        .into()
}

/// A list of beginnings of peer ids.
pub(super) fn clients() -> RefOr<Schema> {
    ArrayBuilder::new()
        .items(
            ObjectBuilder::new()
                .schema_type(Type::String)
                .pattern(Some("^[!-~]{1,20}$")),
        )
        .max_items(Some(RULES))
        .into()
}

/// A list of ISDs.
pub(super) fn isds() -> RefOr<Schema> {
    let isd = ObjectBuilder::new()
        .schema_type(Type::Integer)
        .minimum(Some(1))
        .maximum(Some(u16::MAX));
    ArrayBuilder::new().items(isd).max_items(Some(100)).into()
}
