//! A disk that is full, and then is not.
//!
//! The disk is a small tmpfs in a mount namespace of its own, so that nothing is left of it whatever becomes of the test. That
//! needs root, or a system that lets users make namespaces; where there is neither the test fails and says so.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use crate::ledger::{Load, Plan};
use crate::process::{Launch, Server};
use crate::stores::{Cluster, path};
use crate::{Case, StoreKind, eventually, everywhere, fault_duration, report};

everywhere! { on_a_full_disk_nothing_acknowledged_is_lost_and_room_is_all_it_takes_to_go_on }

/// Room for the load of half a minute.
const DISK_MIB: u32 = 96;

/// See the module. What runs [`SmallDisk::under`] sees it at [`SmallDisk::folder`].
struct SmallDisk {
    folder: TempDir,
    /// Keeps the namespace alive until its standard input ends.
    keeper: Child,
}

impl SmallDisk {
    fn mount() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let script = format!("mount -t tmpfs -o size={DISK_MIB}m tmpfs \"$0\" && echo mounted && exec cat");
        let mut command = Command::new("unshare");
        if !is_root() {
            command.args(["--user", "--map-current-user", "--keep-caps"]);
        }
        command.args(["--mount", "sh", "-c", &script]).arg(folder.path());
        let mut keeper = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("unshare runs");
        let mut line = String::new();
        BufReader::new(keeper.stdout.as_mut().expect("a pipe")).read_line(&mut line).expect("a line");
        assert_eq!(
            line.trim(),
            "mounted",
            "this test mounts a small disk for itself: run it as root, or allow user namespaces \
             (sysctl kernel.unprivileged_userns_clone=1)"
        );
        Self { folder, keeper }
    }

    /// The words that run a program where the disk is.
    fn under(&self) -> Vec<String> {
        let mut words = vec!["nsenter".to_owned(), "--target".to_owned(), self.keeper.id().to_string()];
        if !is_root() {
            words.extend(["--user", "--preserve-credentials"].map(str::to_owned));
        }
        words.push("--mount".to_owned());
        words
    }

    fn filler(&self) -> PathBuf {
        let folder = self.folder.path().strip_prefix("/").expect("an absolute path");
        PathBuf::from(format!("/proc/{}/root", self.keeper.id())).join(folder).join("filler")
    }

    /// Takes all room that is left.
    fn fill(&self) {
        let mut file = std::fs::File::create(self.filler()).expect("room for a name");
        let zeros = vec![0; 4096];
        let full = loop {
            if let Err(error) = file.write_all(&zeros) {
                break error;
            }
        };
        assert_eq!(full.kind(), std::io::ErrorKind::StorageFull, "{full}");
    }

    fn free(&self) {
        std::fs::remove_file(self.filler()).expect("the filler is there");
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        drop(self.keeper.stdin.take());
        let _ = self.keeper.wait();
    }
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// A database whose events are on the small disk, and what keeps it running.
async fn database(case: Case, disk: &SmallDisk) -> (String, Option<Cluster>) {
    if case.store == StoreKind::Sqlite {
        return (format!("sqlite:{}", disk.folder.path().join("events.db").display()), None);
    }
    // The tables alone: a PostgreSQL that cannot write its WAL ends, and then it is away and not full.
    let cluster = Cluster::start(&disk.under());
    let mut words = disk.under();
    words.extend(["chown".to_owned(), format!("--reference={}", path(cluster.folder())), path(disk.folder.path())]);
    assert!(Command::new(&words[0]).args(&words[1..]).status().expect("chown runs").success());
    cluster.run(format!("CREATE TABLESPACE small LOCATION '{}'", path(disk.folder.path()))).await;
    cluster.run("CREATE DATABASE small TABLESPACE small".to_owned()).await;
    let base = cluster.url.rsplit_once('/').expect("a URL with a database").0;
    (format!("{base}/small"), Some(cluster))
}

async fn refuses_or_keeps(server: &Server, load: &Load, case: Case) {
    eventually("the disk is full", async || {
        let is_away = server.metric("ingest_store_available").await? == 0.0;
        let said = match (case.mode, case.store) {
            ("db-first", _) => load.ledger.refused() > 0,
            // Its journal is on the same disk.
            ("journal-first", StoreKind::Sqlite) => is_away && load.ledger.refused_with("journal-full") > 0,
            _ => is_away,
        };
        said.then_some(())
    })
    .await;
}

async fn on_a_full_disk_nothing_acknowledged_is_lost_and_room_is_all_it_takes_to_go_on(case: Case) {
    let disk = SmallDisk::mount();
    let (database, _cluster) = database(case, &disk).await;
    // So small that the journal wants another segment every second or two.
    let mut launch = Launch::new(case, database).with("--journal-segment-bytes 327680");
    launch.under = disk.under();
    let server = launch.start();
    let key = server.key().await;
    let load = Load::start(&server, &key, Plan::default()).await;
    disk.fill();
    refuses_or_keeps(&server, &load, case).await;
    tokio::time::sleep(fault_duration()).await;
    disk.free();
    let back_after = load.flows().await;
    let found = load.settled(&server, &key, 5).await;
    report("disk full", case, &found, back_after);
    assert_eq!(server.stopped().await.code, Some(0));
}
