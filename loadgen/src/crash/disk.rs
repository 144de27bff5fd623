//! A disk whose power can be cut: an ext4 image behind a loop device. Linux, as root.
//!
//! The cut is `EXT4_IOC_SHUTDOWN` with the flag *no log flush*: from then on nothing more reaches the image, neither what is in the page
//! cache nor the filesystem's journal, and every write or sync fails. Mounting again replays the filesystem's journal, as after a
//! power cut. The image is a file in a folder that the cut does not touch, and its own page cache plays the device: whether a real
//! device keeps what it was told to flush is not tested here. What is not synced reaches the image by itself after some seconds
//! (writeback), so a cut must come soon after the writes that it is to lose.
//!
//! A sync that is under way when the cut comes may return as if it had been done although nothing was kept: on Linux 6.18 in 33 of 300 cuts
//! during appends of 4 KiB, in none of 300 during writes into a file that had its size before; of syncs that began later every one
//! failed. A machine without power would not have lived to see it, so what is acknowledged in that moment is nobody's promise; what was
//! acknowledged before the cut, or sent after it, is.
//!
//! Mounts are made in a mount namespace of this process alone: however it ends, the last process in it takes them along.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// How long processes that were killed may keep the disk busy.
const BUSY_PATIENCE: Duration = Duration::from_secs(10);
const BUSY_PAUSE: Duration = Duration::from_millis(5);

/// See the module. Dropping it unmounts it; the image is left to whoever owns its folder.
#[derive(Debug)]
pub struct Disk {
    image: PathBuf,
    mount_point: PathBuf,
    mounted: bool,
}

/// There is no such disk to be had, or it does not do as it is told.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// Not root, or not Linux.
    #[error("--kill power mounts a disk image and cuts it off, which takes Linux and root: {0}")]
    NotAllowed(String),
    /// A program that is missing, or failed.
    #[error("{program}: {reason}; --kill power needs mkfs.ext4 (e2fsprogs) and mount (util-linux)")]
    Program {
        /// Which.
        program: &'static str,
        /// What it said.
        reason: String,
    },
    /// The system refused.
    #[error("cannot {what} the disk image: {source}")]
    System {
        /// What was tried.
        what: &'static str,
        /// Why not.
        source: io::Error,
    },
}

impl Disk {
    /// Makes an image of `mib` MiB in `folder`, with an empty filesystem, and mounts it there.
    pub fn make(folder: &Path, mib: u32) -> Result<Self, DiskError> {
        let (image, mount_point) = (folder.join("disk.img"), folder.join("disk"));
        let made = File::create(&image).and_then(|file| file.set_len(u64::from(mib) << 20));
        made.and_then(|()| std::fs::create_dir(&mount_point))
            .map_err(|source| DiskError::System { what: "make", source })?;
        run("mkfs.ext4", Command::new("mkfs.ext4").args(["-q", "-F"]).arg(&image))?;
        let mut disk = Self { image, mount_point, mounted: false };
        disk.mount()?;
        Ok(disk)
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        &self.mount_point
    }

    /// Cuts the power.
    pub fn cut(&self) -> Result<(), DiskError> {
        system::shut_down(&self.mount_point).map_err(|source| DiskError::System { what: "shut down", source })
    }

    /// Power is back. Whoever used the disk must be gone.
    pub fn mount_again(&mut self) -> Result<(), DiskError> {
        let begin = Instant::now();
        while let Err(source) = self.unmount() {
            if begin.elapsed() > BUSY_PATIENCE {
                return Err(DiskError::System { what: "unmount", source });
            }
            std::thread::sleep(BUSY_PAUSE);
        }
        self.mount()
    }

    fn mount(&mut self) -> Result<(), DiskError> {
        run("mount", Command::new("mount").args(["-t", "ext4", "-o", "loop"]).arg(&self.image).arg(&self.mount_point))?;
        self.mounted = true;
        Ok(())
    }

    fn unmount(&mut self) -> io::Result<()> {
        if self.mounted {
            system::unmount(&self.mount_point)?;
            self.mounted = false;
        }
        Ok(())
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if self.unmount().is_err() {
            // Somebody still uses it: it goes when they do.
            let _ = system::detach(&self.mount_point);
        }
    }
}

fn run(program: &'static str, command: &mut Command) -> Result<(), DiskError> {
    let failed = |reason: String| DiskError::Program { program, reason };
    let output = command.stdin(Stdio::null()).output().map_err(|error| failed(error.to_string()))?;
    let said = String::from_utf8_lossy(&output.stderr);
    output.status.success().then_some(()).ok_or_else(|| failed(said.trim().to_owned()))
}

/// Gives this process mounts of its own. Must be called while it has one thread.
pub fn take_own_mounts() -> Result<(), DiskError> {
    system::take_own_mounts()
}

#[cfg(target_os = "linux")]
mod system {
    use std::fs::File;
    use std::io;
    use std::path::Path;

    use rustix::ioctl::{Opcode, Setter, ioctl, opcode};
    use rustix::mount::{MountPropagationFlags, UnmountFlags, mount_change, unmount as unmount_with};
    use rustix::thread::{UnshareFlags, unshare_unsafe};

    use super::DiskError;

    /// `_IOR('X', 125, __u32)`: the kernel reads the number, whatever the name of the macro says.
    const EXT4_IOC_SHUTDOWN: Opcode = opcode::read::<u32>(b'X', 125);
    /// `EXT4_GOING_FLAGS_NOLOGFLUSH`: neither data nor journal are flushed.
    const NO_LOG_FLUSH: u32 = 2;

    #[allow(unsafe_code, reason = "rustix has no safe form of an ioctl that one filesystem alone knows")]
    pub fn shut_down(mount_point: &Path) -> io::Result<()> {
        let folder = File::open(mount_point)?;
        // SAFETY: EXT4_IOC_SHUTDOWN takes a pointer to a u32 that it only reads (fs/ext4/ioctl.c, ext4_ioctl_shutdown); another
        // filesystem answers ENOTTY and reads nothing.
        unsafe { ioctl(folder, Setter::<EXT4_IOC_SHUTDOWN, u32>::new(NO_LOG_FLUSH)) }?;
        Ok(())
    }

    #[allow(
        unsafe_code,
        reason = "rustix counts unshare as unsafe because of its other flag, for tables of open files"
    )]
    pub fn take_own_mounts() -> Result<(), DiskError> {
        if !rustix::process::geteuid().is_root() {
            return Err(DiskError::NotAllowed("start it with sudo".to_owned()));
        }
        // SAFETY: only unsharing the table of open files could make a descriptor mean another file; NEWNS does not.
        unsafe { unshare_unsafe(UnshareFlags::NEWNS) }.map_err(|error| {
            DiskError::NotAllowed(format!("no mount namespace of its own ({error}); a container needs CAP_SYS_ADMIN"))
        })?;
        let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
        mount_change("/", private)
            .map_err(|error| DiskError::NotAllowed(format!("its mounts cannot be kept private: {error}")))
    }

    pub fn unmount(mount_point: &Path) -> io::Result<()> {
        Ok(unmount_with(mount_point, UnmountFlags::empty())?)
    }

    pub fn detach(mount_point: &Path) -> io::Result<()> {
        Ok(unmount_with(mount_point, UnmountFlags::DETACH)?)
    }
}

#[cfg(not(target_os = "linux"))]
mod system {
    use std::io;
    use std::path::Path;

    use super::DiskError;

    pub fn shut_down(_: &Path) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub fn take_own_mounts() -> Result<(), DiskError> {
        Err(DiskError::NotAllowed("this is not Linux".to_owned()))
    }

    pub fn unmount(_: &Path) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub fn detach(_: &Path) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
}
