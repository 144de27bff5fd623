//! Which id has a key: a table in the order in which the entries were made, that forgets the oldest.
//!
//! An entry takes 40 bytes and lies behind the one before it, so that about a hundred of them share a page, and some eight bytes of
//! the buckets. A general cache kept 430 bytes of it in five allocations: every twelfth request made the heap grow, by a system call
//! and a page fault (29 us of its own work in place of 9), and every 64th dealt with the cache's own log.
//!
//! Nothing here takes longer because there is more of it. The buckets grow by linear hashing (Litwin, "Linear Hashing: A New Tool for
//! File and Table Addressing", VLDB 1980): one at a time, each splitting another in two. A bucket is a chain from its newest entry to
//! its oldest, and it ends at the first that is forgotten: so forgetting touches no chain.

use std::collections::VecDeque;
use std::hash::BuildHasher;

use uuid::Uuid;

use crate::claims::Key;
use crate::hashed::BuildHashed;

/// Entries that are allocated at once, 40 KiB.
const PIECE: u64 = 1024;
/// Buckets that are allocated at once, 4 KiB.
const BUCKETS: usize = 512;
/// In the place of a position: the chain ends. Positions begin with [`PIECE`].
const NONE: u64 = 0;

#[derive(Debug)]
struct Entry {
    key: Key,
    id: Uuid,
    /// Position of the next older one in this bucket.
    older: u64,
}

/// See the module. Keys have to be spread evenly. A key may be put in again: the newest entry counts.
#[derive(Debug)]
pub struct Recent {
    /// The entries by position, [`PIECE`] to each; the first piece holds the oldest.
    pieces: VecDeque<Vec<Entry>>,
    /// Positions of the oldest entry and of the one to come. They are never used again.
    oldest: u64,
    next: u64,
    /// Position of the newest entry of each bucket, [`BUCKETS`] to each allocation. They stay, as many as were needed at most.
    newest: Vec<Box<[u64; BUCKETS]>>,
    buckets: usize,
    /// The greatest power of two that is not above `buckets`: those below `buckets - round` are split already.
    round: usize,
}

impl Default for Recent {
    fn default() -> Self {
        Self {
            pieces: VecDeque::new(),
            oldest: PIECE,
            next: PIECE,
            newest: vec![Box::new([NONE; BUCKETS])],
            buckets: 1,
            round: 1,
        }
    }
}

impl Recent {
    /// Entries, an older one of the same key among them.
    pub fn len(&self) -> u64 {
        self.next - self.oldest
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The id that was put in last with this key.
    pub fn get(&self, key: &Key) -> Option<Uuid> {
        let mut at = self.newest(self.bucket(key));
        while at >= self.oldest {
            let entry = self.entry(at);
            if entry.key == *key {
                return Some(entry.id);
            }
            at = entry.older;
        }
        None
    }

    /// The entry that was put in first.
    pub fn oldest(&self) -> Option<(Key, Uuid)> {
        (!self.is_empty()).then(|| self.entry(self.oldest)).map(|entry| (entry.key, entry.id))
    }

    /// Puts in an entry.
    pub fn push(&mut self, key: Key, id: Uuid) {
        if self.len() >= self.buckets as u64 {
            self.split();
        }
        if self.next.is_multiple_of(PIECE) {
            self.pieces.push_back(Vec::with_capacity(PIECE as usize));
        }
        let bucket = self.bucket(&key);
        let older = self.newest(bucket);
        self.set_newest(bucket, self.next);
        self.pieces.back_mut().expect("one was made for it").push(Entry { key, id, older });
        self.next += 1;
    }

    /// Forgets the oldest entry.
    pub fn pop(&mut self) {
        if self.is_empty() {
            return;
        }
        self.oldest += 1;
        if self.oldest.is_multiple_of(PIECE) {
            self.pieces.pop_front();
        }
    }

    fn entry(&self, at: u64) -> &Entry {
        let piece = at / PIECE - self.oldest / PIECE;
        &self.pieces[piece as usize][(at % PIECE) as usize]
    }

    fn set_older(&mut self, at: u64, older: u64) {
        let piece = at / PIECE - self.oldest / PIECE;
        self.pieces[piece as usize][(at % PIECE) as usize].older = older;
    }

    fn newest(&self, bucket: usize) -> u64 {
        self.newest[bucket / BUCKETS][bucket % BUCKETS]
    }

    fn set_newest(&mut self, bucket: usize, at: u64) {
        self.newest[bucket / BUCKETS][bucket % BUCKETS] = at;
    }

    fn bucket(&self, key: &Key) -> usize {
        let hash = hash(key);
        let wide = hash & (2 * self.round - 1);
        if wide < self.buckets { wide } else { hash & (self.round - 1) }
    }

    /// Makes one bucket more: those of another whose hash says so move to it, the newest first as before.
    fn split(&mut self) {
        let (from, to) = (self.buckets - self.round, self.buckets);
        if to.is_multiple_of(BUCKETS) {
            self.newest.push(Box::new([NONE; BUCKETS]));
        }
        self.buckets += 1;
        let mut at = self.newest(from);
        // What was put last into each of the two chains.
        let mut ends = [NONE; 2];
        for bucket in [from, to] {
            self.set_newest(bucket, NONE);
        }
        while at >= self.oldest {
            let Entry { key, older, .. } = self.entry(at);
            let (older, moves) = (*older, hash(key) & self.round != 0);
            match ends[usize::from(moves)] {
                NONE => self.set_newest(if moves { to } else { from }, at),
                end => self.set_older(end, at),
            }
            ends[usize::from(moves)] = at;
            at = older;
        }
        for end in ends.into_iter().filter(|end| *end != NONE) {
            self.set_older(end, NONE);
        }
        if self.buckets == 2 * self.round {
            self.round *= 2;
        }
    }
}

/// By its last bytes: the first one picks the shard.
fn hash(key: &Key) -> usize {
    BuildHashed::default().hash_one(key) as usize
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(number: u64) -> Key {
        crate::claims::key(Uuid::nil(), &number.to_le_bytes())
    }

    proptest! {
        #[test]
        fn it_finds_what_a_list_searched_from_its_end_would_find(
            steps in proptest::collection::vec(prop_oneof![3 => (0..200u64).prop_map(Some), 1 => Just(None)], 0..6_000),
        ) {
            let mut recent = Recent::default();
            let mut list = VecDeque::new();
            for (number, step) in steps.into_iter().enumerate() {
                match step {
                    Some(chosen) => {
                        let id = Uuid::from_u128(number as u128);
                        recent.push(key(chosen), id);
                        list.push_back((key(chosen), id));
                    }
                    None => {
                        recent.pop();
                        list.pop_front();
                    }
                }
                prop_assert_eq!(recent.oldest(), list.front().copied());
            }
            prop_assert_eq!(recent.len(), list.len() as u64);
            for chosen in 0..200 {
                let last = list.iter().rev().find(|(key, _)| *key == self::key(chosen)).map(|(_, id)| *id);
                prop_assert_eq!(recent.get(&key(chosen)), last);
            }
        }
    }

    #[test]
    fn a_hundred_thousand_are_found_while_it_grows_and_gone_once_they_are_forgotten() {
        let mut recent = Recent::default();
        let keys: Vec<Key> = (0..100_000).map(key).collect();
        for (number, key) in keys.iter().enumerate() {
            assert_eq!(recent.get(key), None);
            recent.push(*key, Uuid::from_u128(number as u128));
        }
        for (number, key) in keys.iter().enumerate() {
            assert_eq!(recent.get(key), Some(Uuid::from_u128(number as u128)));
        }
        for key in &keys {
            recent.pop();
            assert_eq!(recent.get(key), None);
        }
        assert!(recent.is_empty());
        assert!(recent.pieces.len() <= 1, "what is forgotten is given back");
    }

    #[test]
    fn chains_stay_short_however_many_there_are() {
        let mut recent = Recent::default();
        (0..50_000).for_each(|number| recent.push(key(number), Uuid::nil()));
        let longest = (0..recent.buckets)
            .map(|bucket| {
                let here = |at: u64| Some(at).filter(|at| *at != NONE);
                std::iter::successors(here(recent.newest(bucket)), |at| here(recent.entry(*at).older)).count()
            })
            .max();
        // Evenly spread keys, one to a bucket on average and two where it is not split yet: more than 16 has a chance below 1e-8.
        assert!(longest <= Some(16), "{longest:?}");
    }
}
