//! The tables, and how they came to be: the files of `migrations/`, in their order, as a part of the program.
//!
//! Listed here and not by sqlx's `migrate!`: of the whole crate of macros nothing else would be used, and it builds SQLite and both drivers a
//! second time (109 s of what `cargo build --timings` adds up to for a build from nothing on two cores).

use sqlx::SqlSafeStr;
use sqlx::migrate::{Migration, MigrationType, Migrator};

/// A migration is a file's version, what it is called after that, and its text.
type File = (i64, &'static str, &'static str);

macro_rules! files {
    ($folder:literal, $($version:literal $name:literal),+) => {
        &[$(($version, $name, include_str!(concat!("../../migrations/", $folder, "/000", $version, "_", $name, ".sql")))),+]
    };
}

const SQLITE: &[File] = files!("sqlite", 1 "events", 2 "webhooks");
const POSTGRES: &[File] = files!("postgres", 1 "events", 2 "webhooks");

/// Those of SQLite.
pub(super) fn sqlite() -> Migrator {
    migrator(SQLITE)
}

/// Those of PostgreSQL.
pub(super) fn postgres() -> Migrator {
    migrator(POSTGRES)
}

fn migrator(files: &'static [File]) -> Migrator {
    let migration = |&(version, name, sql): &File| {
        Migration::new(version, name.into(), MigrationType::Simple, sql.into_sql_str(), false)
    };
    Migrator::with_migrations(files.iter().map(migration).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_of_a_folder_is_a_part_of_the_program() {
        for (folder, files) in [("sqlite", SQLITE), ("postgres", POSTGRES)] {
            let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations").join(folder);
            let entries = std::fs::read_dir(&folder).unwrap();
            let mut found: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
            found.sort();
            let listed: Vec<_> = files.iter().map(|(version, name, _)| format!("{version:04}_{name}.sql")).collect();
            assert_eq!(listed, found, "{}", folder.display());
        }
    }
}
