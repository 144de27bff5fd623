//! Where the data of a server lie that is killed again and again: a folder of their own, or a disk of their own whose power can be cut,
//! with an SQLite file, a PostgreSQL cluster, or (elsewhere) a database on a PostgreSQL that runs already; and the journal.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use reports::model::KillKind;
use tempfile::TempDir;

use super::asked::AskedStore;
use super::cluster::{Cluster, ClusterError};
use super::disk::{Disk, DiskError};
use crate::observe::postgres::{FreshDatabase, PostgresError};

/// See the module. Dropping it removes everything, from the top down: processes, mount, folder.
#[derive(Debug)]
pub struct Place {
    engine: Engine,
    disk: Option<Disk>,
    folder: TempDir,
    /// Kind and version of the database.
    pub database: String,
}

#[derive(Debug)]
enum Engine {
    Sqlite,
    Cluster(Box<Cluster>),
    Database(FreshDatabase),
}

/// No place to be had, or it does not come back.
#[derive(Debug, thiserror::Error)]
pub enum PlaceError {
    /// No folder.
    #[error("no folder for the data: {0}")]
    Io(#[from] io::Error),
    /// The disk.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// PostgreSQL, ours.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// PostgreSQL, somebody else's.
    #[error(transparent)]
    Postgres(#[from] PostgresError),
}

/// What a place has to be like.
#[derive(Debug)]
pub struct Wanted<'a> {
    /// Where the events go.
    pub store: &'a AskedStore,
    /// Power: on a disk of its own.
    pub kill: KillKind,
    /// Folder to make it in; `None`: the system's temporary one.
    pub parent: Option<&'a Path>,
    /// Size of that disk, MiB.
    pub image_mib: u32,
    /// Name for a database: lower-case letters, digits, underscores.
    pub database_name: &'a str,
}

impl Place {
    /// Makes it; its database runs.
    pub async fn make(wanted: &Wanted<'_>) -> Result<Self, PlaceError> {
        let mut builder = tempfile::Builder::new();
        let builder = builder.prefix("millrace-crash-");
        let folder = match wanted.parent {
            Some(parent) => builder.tempdir_in(parent)?,
            None => builder.tempdir()?,
        };
        // PostgreSQL does not run as root: whoever runs it must be able to enter.
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755))?;
        let disk = match wanted.kill {
            KillKind::Power => Some(Disk::make(folder.path(), wanted.image_mib)?),
            KillKind::Process => None,
        };
        let mut place = Self { engine: Engine::Sqlite, disk, folder, database: "SQLite".to_owned() };
        match wanted.store {
            AskedStore::Sqlite => std::fs::create_dir_all(place.data())?,
            AskedStore::Postgres => {
                std::fs::create_dir_all(place.data())?;
                let mut cluster =
                    Cluster::make(&place.data().join("postgres"), &place.folder.path().join("socket")).await?;
                cluster.start().await?;
                place.database = format!("PostgreSQL {}", cluster.version().await?);
                place.engine = Engine::Cluster(Box::new(cluster));
            }
            AskedStore::PostgresUrl(url) => {
                std::fs::create_dir_all(place.data())?;
                let mut database = FreshDatabase::create(url, wanted.database_name).await?;
                place.database = format!("PostgreSQL {}", database.version().await?);
                place.engine = Engine::Database(database);
            }
        }
        Ok(place)
    }

    /// What is to survive: on the disk that can be cut, where there is one.
    pub fn data(&self) -> PathBuf {
        match &self.disk {
            Some(disk) => disk.path().join("data"),
            None => self.folder.path().join("data"),
        }
    }

    /// The server's log, which no cut touches.
    pub fn log(&self) -> PathBuf {
        self.folder.path().join("server.log")
    }

    /// As `INGEST_DATABASE` has it.
    pub fn location(&self) -> String {
        match &self.engine {
            Engine::Sqlite => format!("sqlite:{}", self.data().join("events.db").display()),
            Engine::Cluster(cluster) => cluster.url(),
            Engine::Database(database) => database.url.clone(),
        }
    }

    /// Everything written so far reaches the disk, so that a cut is about what comes now.
    pub fn settle(&self) -> io::Result<()> {
        if self.disk.is_some() {
            rustix::fs::syncfs(std::fs::File::open(self.data())?)?;
        }
        Ok(())
    }

    /// Cuts the power of the disk, if it has one of its own.
    pub fn cut(&self) -> Result<(), PlaceError> {
        Ok(self.disk.as_ref().map_or(Ok(()), Disk::cut)?)
    }

    /// After a cut, when the server is gone: what else ran on that machine dies too, and the disk comes back as it was.
    pub async fn power_on(&mut self) -> Result<(), PlaceError> {
        let Some(disk) = &mut self.disk else { return Ok(()) };
        if let Engine::Cluster(cluster) = &mut self.engine {
            cluster.die().await?;
        }
        disk.mount_again()?;
        if let Engine::Cluster(cluster) = &self.engine {
            cluster.forget_processes()?;
        }
        Ok(())
    }

    /// Starts the database again, if it died.
    pub async fn start_database(&mut self) -> Result<(), PlaceError> {
        match &mut self.engine {
            Engine::Cluster(cluster) if self.disk.is_some() => Ok(cluster.start().await?),
            _ => Ok(()),
        }
    }

    /// Removes everything.
    pub async fn remove(self) -> Result<(), PlaceError> {
        let Self { engine, disk, folder, .. } = self;
        match engine {
            Engine::Sqlite => {}
            Engine::Cluster(mut cluster) => cluster.stop().await?,
            Engine::Database(database) => database.remove().await?,
        }
        drop(disk);
        Ok(folder.close()?)
    }
}
