//! What `loadgen conform` is asked for: flags, and what they may be.

use std::path::PathBuf;

use clap::Args;
use reports::conform::Rule;

use crate::plan::scheme;

/// Heading of the flags in `--help`.
const TESTED: &str = "What is tested";

/// The flags.
#[derive(Args, Clone, Debug)]
pub struct Asked {
    /// What is tested: the URL of a server that runs, or a target profile; repeatable [default: the reference server, started]
    ///
    /// A URL is http://HOST:PORT or https://HOST:PORT; a profile says how to start a server and which rules it claims (a TOML file, or a
    /// folder with a profile.toml in it; docs/target-profiles.md)
    #[arg(long, value_name = "URL|PROFILE", help_heading = TESTED)]
    pub target: Vec<String>,

    /// Modes of the reference server: cache-first, journal-first, db-first, null [default: all that keep events]
    #[arg(long, value_name = "MODE,…", value_delimiter = ',', conflicts_with = "target", help_heading = TESTED)]
    pub mode: Vec<String>,

    /// Databases of the reference server: sqlite, postgres://USER@HOST:PORT/NAME [default: sqlite]
    ///
    /// sqlite is a file in a temporary folder; on PostgreSQL fresh databases are made, and dropped, also for targets whose profile wants it
    #[arg(long, value_name = "DATABASE,…", value_delimiter = ',', help_heading = TESTED)]
    pub database: Vec<String>,

    /// Another build of the reference server, which is started in place of this program's own
    #[arg(long, value_name = "PROGRAM", conflicts_with = "target", help_heading = TESTED)]
    pub server: Option<PathBuf>,

    /// Only these rules of CONTRACT.md, such as I1,I2 [default: all]
    #[arg(long, value_name = "RULE,…", value_delimiter = ',', value_parser = rule, help_heading = TESTED)]
    pub rule: Vec<Rule>,

    /// Also write the outcomes as JUnit XML
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    pub junit: Option<PathBuf>,
}

fn rule(id: &str) -> Result<Rule, String> {
    let all = || Rule::ALL.map(Rule::id).join(", ");
    let remedy = "choose one or more of these, separated by commas";
    Rule::from_id(&id.to_ascii_uppercase())
        .ok_or_else(|| format!("is no rule of the contract; allowed: {}; {remedy}", all()))
}

/// Where the reference server keeps its events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AskedStore {
    /// A file.
    Sqlite,
    /// A database on this server.
    Postgres(String),
}

impl AskedStore {
    /// In the name of a target.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Sqlite => "sqlite",
            Self::Postgres(_) => "postgres",
        }
    }
}

impl Asked {
    /// The PostgreSQL server that databases are made on.
    pub fn postgres_url(stores: &[AskedStore]) -> Option<String> {
        stores.iter().find_map(|store| match store {
            AskedStore::Postgres(url) => Some(url.clone()),
            AskedStore::Sqlite => None,
        })
    }

    /// The rules, in the contract's order.
    pub fn rules(&self) -> Vec<Rule> {
        Rule::ALL.into_iter().filter(|rule| self.rule.is_empty() || self.rule.contains(rule)).collect()
    }

    /// The stores, or what is wrong with the flags that no parser looks at.
    pub fn stores(&self) -> Result<Vec<AskedStore>, String> {
        if let Some(program) = self.server.as_ref().filter(|program| !program.is_file()) {
            return Err(format!("--server = {}: there is no such file; give the path of a program", program.display()));
        }
        let mut stores = Vec::new();
        let default = ["sqlite".to_owned()];
        for text in if self.database.is_empty() { &default[..] } else { &self.database } {
            let store = match text.as_str() {
                "sqlite" => AskedStore::Sqlite,
                url if url.starts_with("postgres://") || url.starts_with("postgresql://") => {
                    AskedStore::Postgres(url.to_owned())
                }
                other => {
                    return Err(format!(
                        "--database = {}: is no database that the reference server can be started on; allowed: sqlite, \
                         postgres://USER@HOST:PORT/NAME; give one or both",
                        scheme(other)
                    ));
                }
            };
            if stores.iter().any(|known: &AskedStore| known.name() == store.name()) {
                return Err(format!(
                    "--database = {}: is there twice, and results are found by name; leave one out",
                    store.name()
                ));
            }
            stores.push(store);
        }
        Ok(stores)
    }
}
