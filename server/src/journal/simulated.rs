//! A disk in memory that knows what a power cut would leave of it, and that fails on command.
//!
//! What was written and not synced is kept as a list of writes; an image of the disk after a power cut has any of their sectors. Names are
//! changed in order, as on a file system with a journal, and an image has any number of the changes that were not synced.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use super::disk::{Disk, DiskFile};

/// What a device writes whole or not at all, in bytes.
const SECTOR_BYTES: usize = 512;

/// See the module. Clones are the same disk.
#[derive(Clone, Debug, Default)]
pub(super) struct Simulated(Arc<Mutex<State>>);

#[derive(Clone, Debug, Default)]
struct State {
    names: Names,
    names_synced: Names,
    /// After each change since the last sync.
    names_between: Vec<Names>,
    files: Vec<Content>,
    operations: usize,
    fault: Option<(usize, Fault)>,
    is_cut: bool,
    is_full: bool,
    syncs_lie: bool,
}

type Names = BTreeMap<String, usize>;

#[derive(Clone, Debug, Default)]
struct Content {
    now: Vec<u8>,
    synced: Vec<u8>,
    between: Vec<(usize, Vec<u8>)>,
}

/// What happens at an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// It fails, and what was written to that file and not synced is forgotten, while later operations succeed: what Linux does after a failed sync.
    Error,
    /// There is no room.
    Full,
    /// The power is cut before it: this and all later ones fail.
    Cut,
}

/// What is left afterwards.
#[derive(Clone, Copy, Debug)]
pub(super) enum Image {
    /// The process died: all that was written.
    Process,
    /// The power was cut, and nothing reached the device that was not synced.
    Strict,
    /// The power was cut, and any part of what was not synced reached the device.
    Torn(u64),
}

/// An open file of it.
#[derive(Debug)]
pub(super) struct SimulatedFile {
    disk: Simulated,
    index: usize,
}

impl Simulated {
    /// Lets the operation with this number (from 0) fail.
    pub(super) fn with_fault(at: usize, fault: Fault) -> Self {
        let disk = Self::default();
        disk.0.lock().unwrap().fault = Some((at, fault));
        disk
    }

    /// From now on syncing does nothing, and says that it did: what a check of this journal must not survive.
    pub(super) fn let_syncs_lie(&self) {
        self.0.lock().unwrap().syncs_lie = true;
    }

    /// Lets the operation fail that comes after `skipped` others from now on.
    pub(super) fn fail_next(&self, skipped: usize) {
        let mut state = self.0.lock().unwrap();
        state.fault = Some((state.operations + skipped, Fault::Error));
    }

    /// From now on no file can be created.
    pub(super) fn fill(&self) {
        self.0.lock().unwrap().is_full = true;
    }

    /// From now on files can be created again.
    pub(super) fn make_room(&self) {
        self.0.lock().unwrap().is_full = false;
    }

    pub(super) fn operations(&self) -> usize {
        self.0.lock().unwrap().operations
    }

    /// The disk as the next process finds it, without faults.
    pub(super) fn after(&self, image: Image) -> Self {
        let state = self.0.lock().unwrap();
        let mut random = StdRng::seed_from_u64(match image {
            Image::Torn(seed) => seed,
            _ => 0,
        });
        let names = match image {
            Image::Process => state.names.clone(),
            Image::Strict => state.names_synced.clone(),
            Image::Torn(_) => match random.random_range(0..=state.names_between.len()) {
                0 => state.names_synced.clone(),
                changes => state.names_between[changes - 1].clone(),
            },
        };
        let files = state.files.iter().map(|file| file.after(image, &mut random)).collect();
        let left = State { names_synced: names.clone(), names, files, ..State::default() };
        Self(Arc::new(Mutex::new(left)))
    }

    /// The bytes of a file.
    pub(super) fn bytes(&self, name: &str) -> Vec<u8> {
        let state = self.0.lock().unwrap();
        state.files[state.names[name]].now.clone()
    }

    /// Puts other bytes in their place, synced.
    pub(super) fn replace(&self, name: &str, bytes: Vec<u8>) {
        let mut state = self.0.lock().unwrap();
        let index = state.names[name];
        state.files[index] = Content { now: bytes.clone(), synced: bytes, between: Vec::new() };
    }

    fn operate(&self) -> io::Result<MutexGuard<'_, State>> {
        let mut state = self.0.lock().unwrap();
        let number = state.operations;
        state.operations += 1;
        match state.fault {
            Some((at, Fault::Cut)) if number >= at => state.is_cut = true,
            Some((at, Fault::Error)) if number == at => {
                for file in &mut state.files {
                    file.between.clear();
                }
                return Err(io::Error::other("input/output error"));
            }
            Some((at, Fault::Full)) if number == at => return Err(io::ErrorKind::StorageFull.into()),
            _ => {}
        }
        if state.is_cut { Err(io::Error::other("the power is cut")) } else { Ok(state) }
    }
}

impl State {
    fn renamed(&mut self, change: impl FnOnce(&mut Names) -> io::Result<()>) -> io::Result<()> {
        change(&mut self.names)?;
        self.names_between.push(self.names.clone());
        Ok(())
    }
}

impl Content {
    fn after(&self, image: Image, random: &mut StdRng) -> Self {
        let mut left = match image {
            Image::Process => self.now.clone(),
            Image::Strict | Image::Torn(_) => self.synced.clone(),
        };
        if matches!(image, Image::Torn(_)) {
            for (offset, bytes) in &self.between {
                if left.len() < offset + bytes.len() {
                    left.resize(offset + bytes.len(), 0);
                }
                // Sectors begin at multiples of their size, wherever a write begins.
                let mut at = 0;
                while at < bytes.len() {
                    let sector_end = ((offset + at) / SECTOR_BYTES + 1) * SECTOR_BYTES - offset;
                    let end = sector_end.min(bytes.len());
                    if random.random_bool(0.5) {
                        left[offset + at..offset + end].copy_from_slice(&bytes[at..end]);
                    }
                    at = end;
                }
            }
        }
        Self { now: left.clone(), synced: left, between: Vec::new() }
    }
}

fn missing() -> io::Error {
    io::ErrorKind::NotFound.into()
}

impl Disk for Simulated {
    type File = SimulatedFile;

    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.operate()?.names.keys().cloned().collect())
    }

    fn create(&self, name: &str, bytes: u64) -> io::Result<SimulatedFile> {
        let mut state = self.operate()?;
        if state.is_full {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let zeros = vec![0; bytes as usize];
        let index = state.files.len();
        state.files.push(Content { now: zeros.clone(), synced: Vec::new(), between: vec![(0, zeros)] });
        state.renamed(|names| {
            names.insert(name.to_owned(), index);
            Ok(())
        })?;
        Ok(SimulatedFile { disk: self.clone(), index })
    }

    fn open(&self, name: &str) -> io::Result<SimulatedFile> {
        let index = *self.operate()?.names.get(name).ok_or_else(missing)?;
        Ok(SimulatedFile { disk: self.clone(), index })
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.operate()?.renamed(|names| {
            let index = names.remove(from).ok_or_else(missing)?;
            names.insert(to.to_owned(), index);
            Ok(())
        })
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.operate()?.renamed(|names| names.remove(name).map(drop).ok_or_else(missing))
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.operate()?;
        if !state.syncs_lie {
            state.names_synced = state.names.clone();
            state.names_between.clear();
        }
        Ok(())
    }
}

impl DiskFile for SimulatedFile {
    fn read(&self) -> io::Result<Vec<u8>> {
        Ok(self.disk.operate()?.files[self.index].now.clone())
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let offset = offset as usize;
        let written = self.disk.operate();
        // A write that is cut off may have reached the device in part.
        let mut state = match written {
            Err(error) => {
                self.disk.0.lock().unwrap().files[self.index].between.push((offset, bytes.to_vec()));
                return Err(error);
            }
            Ok(state) => state,
        };
        let file = &mut state.files[self.index];
        file.now[offset..offset + bytes.len()].copy_from_slice(bytes);
        file.between.push((offset, bytes.to_vec()));
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.disk.operate()?;
        if !state.syncs_lie {
            let file = &mut state.files[self.index];
            file.synced = file.now.clone();
            file.between.clear();
        }
        Ok(())
    }
}
