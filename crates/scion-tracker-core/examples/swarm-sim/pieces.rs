//! Sets of pieces.

/// Number of pieces in the torrent.
pub const PIECES: usize = 512;
const WORDS: usize = PIECES / 64;

/// A set of pieces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pieces([u64; WORDS]);

impl Pieces {
    pub const NONE: Self = Self([0; WORDS]);
    pub const ALL: Self = Self([u64::MAX; WORDS]);

    pub const fn contains(&self, piece: usize) -> bool {
        self.0[piece / 64] >> (piece % 64) & 1 != 0
    }

    pub const fn insert(&mut self, piece: usize) {
        self.0[piece / 64] |= 1 << (piece % 64);
    }

    /// The pieces in this set that are not in the other.
    pub fn minus(&self, other: &Self) -> Self {
        Self(std::array::from_fn(|at| self.0[at] & !other.0[at]))
    }

    pub fn is_empty(&self) -> bool {
        self.0.iter().all(|word| *word == 0)
    }

    pub fn len(&self) -> usize {
        self.0.iter().map(|word| word.count_ones() as usize).sum()
    }

    pub fn iter(&self) -> impl Iterator<Item = usize> {
        self.0.into_iter().enumerate().flat_map(|(at, word)| {
            let mut word = word;
            std::iter::from_fn(move || {
                let bit = word.trailing_zeros();
                (bit < 64).then(|| {
                    word &= word - 1;
                    at * 64 + bit as usize
                })
            })
        })
    }
}
