//! One mode on one store: load, kill, start again on the same data, look for everything; and again.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use reports::crash;
use reports::format;
use reports::histogram::TimeHistogram;
use reports::model::{CrashTest, DurabilitySetting, Kill, KillKind, Plan};
use tokio::time::{Instant, sleep};

use super::asked::AskedStore;
use super::load;
use super::place::{self, Place, PlaceError};
use super::reckoning::{Account, Found};
use crate::clock::Clock;
use crate::measure::Context;
use crate::observe::machine;
use crate::payload::Payloads;
use crate::progress::Progress;
use crate::recorder::Snapshot;
use crate::reference::{Launch, ReferenceError, ServerProcess};
use crate::target::{Reach, Target, TargetError};

/// After a power cut the server lives on for so long: what it takes in meanwhile it must not acknowledge, unless it promises nothing.
const AFTER_CUT: Duration = Duration::from_millis(50);
const READY_PATIENCE: Duration = Duration::from_secs(30);
const READY_PAUSE: Duration = Duration::from_millis(1);
/// `dedup_id`s of lost events kept as examples.
const LOST_EXAMPLES_MAX: usize = 10;

/// What a test is made of.
#[derive(Debug)]
pub struct Series<'a> {
    /// `db-first on sqlite`.
    pub name: String,
    /// `--mode`.
    pub mode: &'a str,
    /// Where it keeps its events.
    pub store: &'a AskedStore,
    /// Of the run, 1-based: names of events must be unique.
    pub number: usize,
    /// Everything that was asked for.
    pub asked: &'a super::asked::Asked,
    /// The load: its steady phase is longer than any kill takes to come.
    pub plan: &'a Plan,
    /// In which run.
    pub context: &'a Context,
    /// Who is told meanwhile.
    pub progress: &'a Progress,
}

/// Why a test ends before its last kill.
#[derive(Debug, thiserror::Error)]
enum Ended {
    /// The server's own fault.
    #[error("{0}")]
    ServerFailed(String),
    #[error(transparent)]
    Place(#[from] PlaceError),
    #[error(transparent)]
    Reference(#[from] ReferenceError),
    #[error(transparent)]
    Target(#[from] TargetError),
    #[error("the load could not be carried out: {0}")]
    Load(#[from] std::io::Error),
}

/// A test under way.
struct Killing<'a> {
    series: &'a Series<'a>,
    place: Place,
    server: ServerProcess,
    target: Target,
    clock: Clock,
    random: ChaCha8Rng,
    snapshot: Arc<Mutex<Snapshot>>,
    test: CrashTest,
    past: Vec<Past>,
    ready: TimeHistogram,
    /// How long the last start took: the next one is killed within that.
    ready_last: Duration,
}

/// A kill that is over.
struct Past {
    account: Account,
    found: Found,
}

impl Series<'_> {
    /// Carries it out. Whatever happens, what was found is kept.
    pub async fn run(&self) -> CrashTest {
        self.progress.phase(&self.name, "starting", None);
        let mut killing = match Killing::begin(self).await {
            Ok(killing) => killing,
            Err(error) => return CrashTest { failure: Some(error.to_string()), ..self.empty() },
        };
        self.progress.phase(&self.name, "load and kill", Some(&killing.snapshot));
        let mut ended = None;
        for number in 1..=self.asked.kills {
            if self.context.is_stopped() {
                break;
            }
            self.progress.step(&format!("{}, kill {number} of {}", self.name, self.asked.kills));
            if let Err(error) = killing.kill_once(number).await {
                ended = Some(error);
                break;
            }
        }
        if let Some(error) = &ended {
            self.progress.say(&format!("{}: {error}", self.name));
        }
        killing.end(ended).await
    }

    fn empty(&self) -> CrashTest {
        let none = || TimeHistogram::new().times(0);
        CrashTest {
            name: self.name.clone(),
            mode: self.mode.to_owned(),
            database: self.store.name().to_owned(),
            kill: self.asked.kill.kind(),
            durability: None,
            losses_expected: self.asked.expect_losses,
            settings: Vec::new(),
            filesystem: None,
            seed: self.asked.seed,
            kills_planned: self.asked.kills,
            kills: Vec::new(),
            acknowledged: 0,
            in_flight: 0,
            lost: 0,
            duplicated: 0,
            altered: 0,
            unverified: 0,
            unacknowledged: 0,
            reappeared: 0,
            resent: 0,
            resent_known: 0,
            lost_age: none(),
            ready: none(),
            lost_examples: Vec::new(),
            server_failure: None,
            failure: None,
        }
    }

    /// Of the events of one kill.
    fn events_name(&self, kill: u32) -> String {
        format!("{}.{}.{kill}", self.context.run_id, self.number)
    }

    fn launch(&self, place: &Place) -> Launch<'_> {
        let faults = self.asked.fault.iter().flat_map(|fault| ["--fault".to_owned(), fault.clone()]);
        Launch {
            program: None,
            mode: self.mode,
            polling: &self.asked.polling,
            location: place.location(),
            journal: place.data().join("journal"),
            log: place.log(),
            flags: faults.chain(self.asked.server_flag.iter().cloned()).collect(),
        }
    }
}

impl<'a> Killing<'a> {
    /// Makes a place and starts a server there for the first time.
    async fn begin(series: &'a Series<'a>) -> Result<Self, Ended> {
        let asked = series.asked;
        let wanted = place::Wanted {
            store: series.store,
            kill: asked.kill.kind(),
            parent: asked.data_dir.as_deref(),
            image_mib: asked.image_mib,
            database_name: &format!("millrace_{}_{}", series.context.run_id.replace('-', "_"), series.number),
        };
        let place = Place::make(&wanted).await?;
        let begin = Instant::now();
        let (server, url) = ServerProcess::listening(&series.launch(&place)).await?;
        let target = Target::new(&url, &Reach::default())?;
        let mut test = series.empty();
        test.database.clone_from(&place.database);
        test.filesystem = machine::filesystem(&place.data());
        if let Some(scrape) = target.metrics().await {
            let settings = scrape.pairs("ingest_store_setting", "name", "value").into_iter();
            test.settings = settings.map(|(name, value)| DurabilitySetting { name, value }).collect();
            test.settings.sort_by(|a, b| a.name.cmp(&b.name));
        }
        Ok(Self {
            series,
            place,
            server,
            target,
            clock: Clock::start(),
            random: ChaCha8Rng::seed_from_u64(asked.seed.wrapping_add(series.number as u64)),
            snapshot: Arc::default(),
            test,
            past: Vec::new(),
            ready: TimeHistogram::new(),
            ready_last: begin.elapsed(),
        })
    }

    /// Loads it, kills it in the middle, starts it again, and looks for what it had acknowledged.
    async fn kill_once(&mut self, number: u32) -> Result<(), Ended> {
        let name = self.series.events_name(number);
        let key = self.target.generate_key(&name).await?;
        let destination = self.target.destination(std::slice::from_ref(&key))?;
        let seed = self.series.asked.seed.wrapping_add(u64::from(number));
        let payloads = Payloads::new(&name, self.series.asked.payload_bytes, seed);
        self.place.settle()?;
        let after = self.series.asked.load_max.0.mul_f64(self.random.random());
        let load = load::begin(self.series.plan, &destination, &payloads, seed, self.clock, &self.snapshot).await?;
        let begin_ns = load.begin_ns;
        sleep(after.saturating_sub(Duration::from_nanos(self.clock.now_ns().saturating_sub(begin_ns)))).await;
        if self.server.has_ended()? {
            return Err(Ended::ServerFailed(format!("it ended by itself under load{}", self.server.log_end())));
        }
        let kill_ns = self.clock.now_ns();
        let cut_ns = self.kill().await?;
        let mut loaded = load.end().await?;
        let in_flight = cut_ns.map_or(0, |cut_ns| loaded.forget_in_flight(kill_ns, cut_ns));
        self.test.durability = self.test.durability.take().or(loaded.durability);
        let mut kill = Kill {
            number,
            at_ms: (kill_ns - begin_ns) as f64 / 1e6,
            in_recovery_ms: None,
            acknowledged: loaded.acknowledged.len() as u64,
            in_flight,
            lost: 0,
            lost_age_ns_max: None,
            duplicated: 0,
            altered: 0,
            unverified: loaded.acknowledged.len() as u64,
            unacknowledged: 0,
            ready_ns: None,
        };
        let (planned, acknowledged) = (loaded.planned, loaded.acknowledged);
        let mut account = Account { key, payloads, planned, acknowledged, kill_ns, resent: 0, resent_known: 0 };
        let restarted = self.restart(&mut kill).await;
        if let Err(error) = restarted {
            self.test.acknowledged += kill.acknowledged;
            self.test.unverified += kill.unverified;
            self.test.kills.push(kill);
            return Err(error);
        }
        account.resend(&self.target, self.clock).await?;
        let found = account.reconcile(&self.target, self.clock, self.series.asked.drain_timeout.0).await;
        self.tell(number, &kill, &found);
        self.test.kills.push(kill);
        self.past.push(Past { account, found });
        Ok(())
    }

    /// Ends the server as the test is about: its process, or the power of the machine that it is on; says when that was off.
    async fn kill(&mut self) -> Result<Option<u64>, Ended> {
        let mut cut_ns = None;
        if self.series.asked.kill.kind() == KillKind::Power {
            self.place.cut()?;
            cut_ns = Some(self.clock.now_ns());
            sleep(AFTER_CUT).await;
        }
        self.server.kill().await?;
        Ok(cut_ns)
    }

    /// Starts it again on its data; sometimes kills it while it recovers, and starts it once more.
    async fn restart(&mut self, kill: &mut Kill) -> Result<(), Ended> {
        self.place.power_on().await?;
        let again = self.random.random_bool(self.series.asked.recovery_share);
        let moment = self.ready_last.mul_f64(self.random.random());
        if again {
            self.start_database().await?;
            let begin = Instant::now();
            self.server = ServerProcess::launch(&self.series.launch(&self.place))?;
            sleep(moment).await;
            kill.in_recovery_ms = Some(begin.elapsed().as_secs_f64() * 1e3);
            self.kill().await?;
            self.place.power_on().await?;
        }
        let begin = Instant::now();
        self.start_database().await?;
        self.server = ServerProcess::launch(&self.series.launch(&self.place))?;
        let url = self.server.listens().await.map_err(|error| Ended::ServerFailed(error.to_string()))?;
        self.target = Target::new(&url, &Reach::default())?;
        while !self.target.is_ready().await {
            if begin.elapsed() > READY_PATIENCE {
                return Err(Ended::ServerFailed(format!("it was not ready within {} s", READY_PATIENCE.as_secs())));
            }
            sleep(READY_PAUSE).await;
        }
        self.ready_last = begin.elapsed();
        self.ready.record(self.ready_last.as_nanos() as u64);
        kill.ready_ns = Some(self.ready_last.as_nanos() as u64);
        Ok(())
    }

    /// A database that does not come back after a cut is as bad as a server that does not.
    async fn start_database(&mut self) -> Result<(), Ended> {
        self.place.start_database().await.map_err(|error| Ended::ServerFailed(error.to_string()))
    }

    /// A loss where nothing may be lost is told at once.
    fn tell(&self, number: u32, kill: &Kill, found: &Found) {
        let ledger = &found.ledger;
        let kept = self.test.losses_expected || !crash::promises(self.test.durability.as_deref(), self.test.kill);
        if (ledger.lost > 0 && !kept) || ledger.duplicated + ledger.corrupted > 0 {
            self.series.progress.say(&format!(
                "{}, kill {number} after {}: {} lost, {} duplicated, {} altered",
                self.series.name,
                format::time(kill.at_ms * 1e6),
                ledger.lost,
                ledger.duplicated,
                ledger.corrupted
            ));
        }
        if let Some(doubt) = &found.doubt {
            self.series.progress.say(&format!("{}, kill {number}: {doubt}", self.series.name));
        }
    }

    /// Looks for everything once more, since a replay can lose or double what was there before; adds up; removes the place.
    async fn end(mut self, ended: Option<Ended>) -> CrashTest {
        let is_alive = ended.is_none() && !self.series.context.is_stopped();
        self.series.progress.step(&format!("{}, last look", self.series.name));
        let mut ages = TimeHistogram::new();
        let (mut past, mut kills) = (std::mem::take(&mut self.past), std::mem::take(&mut self.test.kills));
        for (Past { account, found }, kill) in past.iter_mut().zip(&mut kills) {
            let lost_before = found.lost.len() as u64;
            if is_alive {
                *found = account.reconcile(&self.target, self.clock, self.series.asked.drain_timeout.0).await;
            }
            add(&mut self.test, kill, account, found);
            self.test.reappeared += lost_before.saturating_sub(found.lost.len() as u64);
            found.lost.iter().filter_map(|event| account.age_ns(event)).for_each(|age_ns| ages.record(age_ns));
        }
        self.test.kills = kills;
        self.test.lost_age = ages.times(0);
        self.test.ready = self.ready.times(0);
        match ended {
            Some(Ended::ServerFailed(why)) => self.test.server_failure = Some(why),
            Some(other) => self.test.failure = Some(other.to_string()),
            None => {
                let stopped = self.server.terminate().await.and_then(|ended| ended);
                self.test.failure = stopped.err().map(|error| error.to_string());
            }
        }
        drop(self.server);
        if let Err(error) = self.place.remove().await {
            self.test.failure.get_or_insert(error.to_string());
        }
        self.test
    }
}

fn add(test: &mut CrashTest, kill: &mut Kill, account: &Account, found: &Found) {
    let ledger = &found.ledger;
    kill.lost = ledger.lost;
    kill.lost_age_ns_max = found.lost.iter().filter_map(|event| account.age_ns(event)).max();
    kill.duplicated = ledger.duplicated;
    kill.altered = ledger.corrupted;
    kill.unverified = ledger.unverified;
    kill.unacknowledged = ledger.unacknowledged + account.resent_known;
    test.acknowledged += ledger.acknowledged;
    test.in_flight += kill.in_flight;
    test.lost += kill.lost;
    test.duplicated += kill.duplicated;
    test.altered += kill.altered;
    test.unverified += kill.unverified;
    test.unacknowledged += kill.unacknowledged;
    test.resent += account.resent;
    test.resent_known += account.resent_known;
    let free = LOST_EXAMPLES_MAX.saturating_sub(test.lost_examples.len());
    test.lost_examples.extend(ledger.lost_examples.iter().take(free).cloned());
}
