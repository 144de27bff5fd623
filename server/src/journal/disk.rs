//! All that the journal asks of a disk, as a seam: the real one below, and in tests one that forgets what was not synced, tears writes and
//! fails on command.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

/// A folder of files.
pub trait Disk: Send + Sync + 'static {
    /// An open file of it.
    type File: DiskFile;
    /// Names of all files.
    fn list(&self) -> io::Result<Vec<String>>;
    /// A file with room for so many bytes, which are zeros as far as anybody wrote any, in the place of one that may have had the name.
    /// Neither the file nor its name need survive before they are synced.
    fn create(&self, name: &str, bytes: u64) -> io::Result<Self::File>;
    /// An existing file.
    fn open(&self, name: &str) -> io::Result<Self::File>;
    /// Atomic; survives once the folder is synced.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Survives once the folder is synced.
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Makes names survive.
    fn sync(&self) -> io::Result<()>;
}

/// An open file. One thread writes to it.
pub trait DiskFile: Send + 'static {
    /// All bytes, from the beginning.
    fn read(&self) -> io::Result<Vec<u8>>;
    /// Writes all of them at this offset.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Makes what was written survive.
    fn sync(&self) -> io::Result<()>;
}

/// Name of the file that is locked for as long as a server uses the folder.
const LOCK: &str = "lock";

/// A real folder, which is this process's alone for as long as the value lives.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    /// Kept open, for syncing.
    folder: File,
    _lock: File,
}

/// The folder cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// Another process has it.
    #[error("another server uses it")]
    InUse,
    /// The system says no.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl Folder {
    /// Opens the folder, making it when it is missing, and locks it.
    pub fn open(path: &Path) -> Result<Self, FolderError> {
        if !path.exists() {
            std::fs::create_dir_all(path)?;
            if let Some(parent) = path.canonicalize()?.parent() {
                File::open(parent)?.sync_all()?;
            }
        }
        let lock = OpenOptions::new().create(true).truncate(false).write(true).open(path.join(LOCK))?;
        lock.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => FolderError::InUse,
            TryLockError::Error(error) => FolderError::Io(error),
        })?;
        Ok(Self { path: path.to_owned(), folder: File::open(path)?, _lock: lock })
    }
}

impl Disk for Folder {
    type File = File;

    fn list(&self) -> io::Result<Vec<String>> {
        let names = std::fs::read_dir(&self.path)?.map(|entry| entry.map(|entry| entry.file_name().into_string()));
        // What is not UTF-8 is not ours.
        Ok(names.collect::<io::Result<Vec<_>>>()?.into_iter().filter_map(Result::ok).collect())
    }

    fn create(&self, name: &str, bytes: u64) -> io::Result<File> {
        let file = OpenOptions::new().create(true).truncate(true).read(true).write(true).open(self.path.join(name))?;
        #[cfg(target_os = "linux")]
        match rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, bytes) {
            // A full disk says so here, before a byte is written.
            Ok(()) | Err(rustix::io::Errno::OPNOTSUPP) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(file)
    }

    fn open(&self, name: &str) -> io::Result<File> {
        OpenOptions::new().read(true).write(true).open(self.path.join(name))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        std::fs::rename(self.path.join(from), self.path.join(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        std::fs::remove_file(self.path.join(name))
    }

    fn sync(&self) -> io::Result<()> {
        self.folder.sync_all()
    }
}

impl DiskFile for File {
    fn read(&self) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; usize::try_from(self.metadata()?.len()).unwrap_or(usize::MAX)];
        self.read_exact_at(&mut bytes, 0)?;
        Ok(bytes)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.write_all_at(bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }
}
