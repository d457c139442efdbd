//! The tables of the records, and the statements that write their rows.

use scion_tracker_core::access::Expiry;
use scion_tracker_core::address::Isd;
use scion_tracker_core::types::InfoHash;
use sqlx::Error;

use super::book::Change;
use super::sql::{Connection, Value};

/// Rows of one statement.
pub(super) const ROWS: usize = 250;

/// A table of records.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) name: &'static str,
    key: &'static str,
    /// Other columns.
    rest: &'static [&'static str],
}

const PASSKEYS: Table = Table {
    name: "passkeys",
    key: "passkey",
    rest: &["expires", "note", "owner", "created"],
};
const ALLOWED: Table = Table {
    name: "allowed",
    key: "info_hash",
    rest: &[],
};
const DENIED: Table = Table {
    name: "denied",
    key: "info_hash",
    rest: &[],
};
const BANS: Table = Table {
    name: "bans",
    key: "target",
    rest: &["expires", "reason"],
};
const ISOLATIONS: Table = Table {
    name: "isolations",
    key: "info_hash",
    rest: &["isds", "proven"],
};
const RULES: Table = Table {
    name: "rules",
    key: "info_hash",
    rest: &["rules"],
};
pub(super) const COMPLETED: Table = Table {
    name: "completed",
    key: "info_hash",
    rest: &["downloads"],
};

/// A row to write or to remove.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) table: &'static Table,
    pub(super) key: Value,
    /// The values of the other columns. `None`: the row is removed.
    pub(super) rest: Option<Vec<Value>>,
}

impl Row {
    /// The row that a change is about. `None` if it is about more than one.
    pub(super) fn of(change: &Change) -> Option<Self> {
        let of_hash = |info_hash: &Option<InfoHash>| {
            Value::Bytes(info_hash.map_or_else(Vec::new, |hash| hash.0.to_vec()))
        };
        let text = |text: &str| Value::Text(Some(text.to_owned()));
        let (table, key, rest) = match change {
            Change::AddPasskey(record) => (
                &PASSKEYS,
                Value::Bytes(record.passkey.as_bytes().to_vec()),
                Some(vec![
                    match record.expiry {
                        Expiry::Never => Value::Int(None),
                        Expiry::At(unix) => seconds(unix),
                    },
                    Value::Text(record.note.clone()),
                    Value::Text(record.owner.clone()),
                    seconds(record.created),
                ]),
            ),
            Change::RemovePasskey(passkey) => {
                (&PASSKEYS, Value::Bytes(passkey.as_bytes().to_vec()), None)
            }
            Change::Allow(hash) => (&ALLOWED, bytes(hash), Some(Vec::new())),
            Change::Disallow(hash) => (&ALLOWED, bytes(hash), None),
            Change::Deny(hash) => (&DENIED, bytes(hash), Some(Vec::new())),
            Change::Undeny(hash) => (&DENIED, bytes(hash), None),
            Change::Ban(target, ban) => (
                &BANS,
                text(&target.to_string()),
                Some(vec![
                    ban.until.map_or(Value::Int(None), seconds),
                    text(&ban.reason),
                ]),
            ),
            Change::Unban(target) => (&BANS, text(&target.to_string()), None),
            Change::Isolate(hash, isolation) => {
                let isds: Vec<_> = isolation.isds.iter().map(Isd::to_string).collect();
                let proven = Value::Int(Some(isolation.proven_only.into()));
                let rest = vec![text(&isds.join(",")), proven];
                (&ISOLATIONS, bytes(hash), Some(rest))
            }
            Change::EndIsolation(hash) => (&ISOLATIONS, bytes(hash), None),
            // Lists of texts can always be written as JSON.
            Change::SetRules(hash, rules) => {
                let rules = serde_json::to_string(rules).unwrap_or_default();
                (&RULES, of_hash(hash), Some(vec![text(&rules)]))
            }
            Change::RemoveRules(hash) => (&RULES, of_hash(hash), None),
            Change::RemoveExpired(_) => return None,
        };
        Some(Self { table, key, rest })
    }
}

/// An info hash as a value.
pub(super) fn bytes(info_hash: &InfoHash) -> Value {
    Value::Bytes(info_hash.0.to_vec())
}

/// A time in seconds since 1970 as a value.
pub(super) fn seconds(unix: u64) -> Value {
    Value::Int(Some(i64::try_from(unix).unwrap_or(i64::MAX)))
}

/// Writes or removes rows of one table.
pub(super) async fn write_rows(connection: &mut Connection, rows: &[Row]) -> Result<(), Error> {
    let Some(first) = rows.first() else {
        return Ok(());
    };
    let mut values = Vec::with_capacity(rows.len() * 5);
    for row in rows {
        values.push(row.key.clone());
        values.extend(row.rest.iter().flatten().cloned());
    }
    let Table { name, key, .. } = first.table;
    let sql = match first.rest {
        Some(_) => insert(connection, first.table, rows.len(), false),
        None => {
            let marks = vec!["?"; rows.len()].join(", ");
            format!("DELETE FROM {name} WHERE {key} IN ({marks})")
        }
    };
    connection
        .execute(&sql, &values, matches!(rows.len(), 1 | ROWS))
        .await
        .map(drop)
}

/// Inserts rows. Where the key is there, sets the other columns, or adds to them.
pub(super) fn insert(connection: &Connection, table: &Table, rows: usize, add: bool) -> String {
    let Table { name, key, rest } = table;
    let columns = [&[*key], *rest].concat();
    let marks = format!("({})", vec!["?"; columns.len()].join(", "));
    let marks = vec![marks; rows].join(", ");
    let on_conflict = connection.dialect().on_conflict(name, key, rest, add);
    let columns = columns.join(", ");
    format!("INSERT INTO {name} ({columns}) VALUES {marks}{on_conflict}")
}
