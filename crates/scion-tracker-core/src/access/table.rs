//! A large table of keys that changes one by one while workers read it.
//!
//! The keys are spread over 256 shards, each behind an `Arc` of its own. A copy of the table shares all
//! shards with the original. A change to a copy copies the one shard that it touches, so that a table of a
//! million torrents changes in microseconds, and a bulk update copies each shard at most once.

use std::fmt;
use std::hash::Hash;
use std::sync::Arc;

use ahash::RandomState;
use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

/// Shards of a table: one in a million torrents has some 4,000.
const SHARDS: usize = 256;

/// A part of a table, which clones of the table share.
type Shard<K, V> = Arc<HashTable<(K, V)>>;

/// Maps keys to values. A clone costs 257 counters at most, and shares everything.
#[derive(Clone)]
pub struct Table<K, V> {
    shards: Arc<[Shard<K, V>]>,
    len: usize,
    keys: RandomState,
}

impl<K, V> Table<K, V>
where
    K: Hash + Eq + Clone,
    V: Clone,
{
    /// An empty table. `seeds` key its hash function. They must be unpredictable to peers if the keys are
    /// secrets.
    pub fn new(seeds: [u64; 4]) -> Self {
        let [a, b, c, d] = seeds;
        let empty = Arc::new(HashTable::new());
        Self {
            shards: vec![empty; SHARDS].into(),
            len: 0,
            keys: RandomState::with_seeds(a, b, c, d),
        }
    }

    /// The number of keys.
    #[inline]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no keys.
    #[inline]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The value of a key.
    #[inline]
    pub fn get(&self, key: &K) -> Option<&V> {
        if self.len == 0 {
            return None;
        }
        let hash = self.keys.hash_one(key);
        let shard = &self.shards[shard(hash)];
        shard
            .find(hash, |(known, _)| known == key)
            .map(|(_, value)| value)
    }

    /// Whether the key is in the table.
    #[inline]
    pub fn contains(&self, key: &K) -> bool {
        self.get(key).is_some()
    }

    /// Sets the value of a key. Returns the old value.
    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        let hash = self.keys.hash_one(&key);
        let Self { keys, .. } = self;
        let shard = Arc::make_mut(&mut Arc::make_mut(&mut self.shards)[shard(hash)]);
        match shard.entry(
            hash,
            |(known, _)| *known == key,
            |(known, _)| keys.hash_one(known),
        ) {
            Entry::Occupied(mut entry) => Some(std::mem::replace(&mut entry.get_mut().1, value)),
            Entry::Vacant(entry) => {
                entry.insert((key, value));
                self.len += 1;
                None
            }
        }
    }

    /// Removes a key. Returns its value.
    pub fn remove(&mut self, key: &K) -> Option<V> {
        // An unknown key must not copy a shard.
        self.get(key)?;
        let hash = self.keys.hash_one(key);
        let shard = Arc::make_mut(&mut Arc::make_mut(&mut self.shards)[shard(hash)]);
        let entry = shard.find_entry(hash, |(known, _)| known == key).ok()?;
        let ((_, value), _) = entry.remove();
        self.len -= 1;
        Some(value)
    }

    /// All keys and values, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        let entries = self.shards.iter().flat_map(|shard| shard.iter());
        entries.map(|(key, value)| (key, value))
    }

    /// Applies what has changed between two tables: removes the keys that only `old` has, and sets those
    /// that `new` has and `old` has not, or has with another value. Keys that came from elsewhere stay.
    pub fn apply(&mut self, old: &Self, new: &Self)
    where
        V: PartialEq,
    {
        if self.shares_all_with(old) {
            *self = new.clone();
            return;
        }
        for (key, _) in old.iter().filter(|(key, _)| !new.contains(key)) {
            self.remove(key);
        }
        let is_new = |(key, value): &(&K, &V)| old.get(key) != Some(value);
        for (key, value) in new.iter().filter(is_new) {
            self.insert(key.clone(), value.clone());
        }
    }

    /// Whether both are the same unchanged table.
    fn shares_all_with(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.shards, &other.shards) || (self.is_empty() && other.is_empty())
    }

    /// An empty table with the same hash function and room for so many keys.
    pub fn emptied(&self, room: usize) -> Self {
        let shard = HashTable::with_capacity(room / SHARDS * 9 / 8);
        Self {
            shards: (0..SHARDS).map(|_| Arc::new(shard.clone())).collect(),
            len: 0,
            keys: self.keys.clone(),
        }
    }
}

impl<K, V> Extend<(K, V)> for Table<K, V>
where
    K: Hash + Eq + Clone,
    V: Clone,
{
    fn extend<I: IntoIterator<Item = (K, V)>>(&mut self, entries: I) {
        for (key, value) in entries {
            self.insert(key, value);
        }
    }
}

/// Keys may be secrets, and there may be a million.
impl<K, V> fmt::Debug for Table<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} entries", self.len)
    }
}

/// The shard of a hash. The table inside uses the low bits and the seven highest.
const fn shard(hash: u64) -> usize {
    (hash >> 40) as usize % SHARDS
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, Clone)]
    enum Step {
        Insert(u16, u8),
        Remove(u16),
        Apply(BTreeMap<u16, u8>),
    }

    fn step() -> impl Strategy<Value = Step> {
        let key = 0..600u16;
        prop_oneof![
            8 => (key.clone(), any::<u8>()).prop_map(|(key, value)| Step::Insert(key, value)),
            4 => key.clone().prop_map(Step::Remove),
            1 => prop::collection::btree_map(key, any::<u8>(), 0..300).prop_map(Step::Apply),
        ]
    }

    fn table(entries: &BTreeMap<u16, u8>) -> Table<u16, u8> {
        let mut table = Table::new([1, 2, 3, 4]).emptied(entries.len());
        table.extend(entries.iter().map(|(key, value)| (*key, *value)));
        table
    }

    fn check_equal(table: &Table<u16, u8>, model: &BTreeMap<u16, u8>) {
        assert_eq!(table.len(), model.len());
        assert_eq!(table.is_empty(), model.is_empty());
        let entries: BTreeMap<_, _> = table.iter().map(|(key, value)| (*key, *value)).collect();
        assert_eq!(entries, *model);
        for key in 0..600 {
            assert_eq!(table.get(&key), model.get(&key));
        }
    }

    proptest! {
        /// It does what an ordered map does, and what was cloned before a change stays as it was.
        #[test]
        fn behaves_as_a_map_of_which_copies_are_kept(steps in prop::collection::vec(step(), 0..120)) {
            let mut table = Table::new([1, 2, 3, 4]);
            let mut model = BTreeMap::new();
            let mut file = BTreeMap::new();
            for step in steps {
                let (before, model_before) = (table.clone(), model.clone());
                match step {
                    Step::Insert(key, value) => {
                        prop_assert_eq!(table.insert(key, value), model.insert(key, value));
                    }
                    Step::Remove(key) => {
                        prop_assert_eq!(table.remove(&key), model.remove(&key));
                    }
                    Step::Apply(new) => {
                        table.apply(&self::table(&file), &self::table(&new));
                        for key in file.keys().filter(|key| !new.contains_key(key)) {
                            model.remove(key);
                        }
                        for (key, value) in &new {
                            if file.get(key) != Some(value) {
                                model.insert(*key, *value);
                            }
                        }
                        file = new;
                    }
                }
                check_equal(&before, &model_before);
                check_equal(&table, &model);
            }
        }
    }

    #[test]
    fn a_change_copies_one_shard() {
        let mut table = Table::new([1, 2, 3, 4]);
        table.extend((0..10_000).map(|key| (key, ())));
        let copy = table.clone();
        table.insert(10_000, ());
        table.remove(&10_001);
        let shards = table.shards.iter().zip(copy.shards.iter());
        let copied = shards.filter(|(one, other)| !Arc::ptr_eq(one, other));
        assert_eq!(copied.count(), 1);
    }
}
