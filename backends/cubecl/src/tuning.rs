//! What CubeCL's environment records of tuning and compiling, and its launches.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use burnmark_backend_api::{CompiledKernel, KernelUse, LaunchWatch, Origin, Trial, TunedKey, TuningEvents};
use cubecl::config::{TypeNameFormatLevel, type_name_format};
use cubecl_environment::future::block_on;
use cubecl_environment::persistence::Database;
use cubecl_environment::records::{self, Record, RecordEffect, Records, Session, SessionId, Stamp};
use cubecl_runtime::logging::TimingRequest;
use cubecl_runtime::logging::{Duration as Length, LaunchObservation, LaunchObserver, ProfileDuration, TimingMethod};
use serde::{Deserialize, Serialize};

/// Namespaces of tuned answers begin so.
pub(crate) const ANSWERS: &str = "autotune";

/// Says that the account began; as a change, so that the session is kept even if it tunes and compiles nothing.
#[derive(Serialize, Deserialize)]
struct Began {
    known_at_start: usize,
}

impl Record for Began {
    const KIND: &'static str = "burnmark";
}

/// What is read of CubeCL's `TuneRecord`, whatever its key is.
#[derive(Deserialize)]
pub(crate) struct Tuned {
    table: String,
    entry: Entry,
    winner: usize,
    trials: Vec<RecordedTrial>,
    wall: Duration,
    stored: bool,
    #[serde(default)]
    plan: Vec<Planned>,
}

#[derive(Deserialize)]
struct Entry {
    key: serde_json::Value,
}

#[derive(Deserialize)]
struct RecordedTrial {
    name: String,
    wall: Duration,
}

#[derive(Deserialize)]
struct Planned {
    name: String,
    index: usize,
}

impl Record for Tuned {
    const KIND: &'static str = "autotune";
}

/// What is read of CubeCL's `CompilationRecord`.
#[derive(Deserialize)]
struct Compiled {
    kernel: String,
    outcome: String,
    duration: Duration,
}

impl Record for Compiled {
    const KIND: &'static str = "compilation";
}

/// Begins the account of what this process tunes and compiles; the environment must be active, which it is once a device is
/// open. Returns when that was.
#[must_use]
pub fn record_tuning() -> Origin {
    let known_at_start = Database::open_active().map_or(0, |database| known(&database));
    let now = Instant::now();
    // Where nothing can be written, `events` finds nothing and says so.
    let _ = records::write(RecordEffect::Changed, &Began { known_at_start });
    now
}

/// The account of a process that began after `since`, if there is one.
pub(crate) fn events(database: &Database, process: u32, since: SystemTime) -> Option<TuningEvents> {
    let records = Records::new(database);
    let since_ms = since.duration_since(UNIX_EPOCH).ok()?.as_millis();
    let its = |session: &Session| session.process == process && u128::from(session.started_unix_ms) >= since_ms;
    let sessions: Vec<SessionId> = records.sessions().iter().filter(|session| its(session)).map(|it| it.id).collect();
    let began = records.read::<Began>().into_iter().find(|record| sessions.contains(&record.stamp.session))?;
    let session = began.stamp.session;
    let at = |stamp: Stamp| nanoseconds(stamp.offset.saturating_sub(began.stamp.offset));
    let tuned = records.read::<Tuned>().into_iter().filter(|record| record.stamp.session == session);
    let compiled = records.read::<Compiled>().into_iter().filter(|record| record.stamp.session == session);
    Some(TuningEvents {
        known_at_start: began.record.known_at_start,
        tuned: tuned.map(|record| record.record.told(at(record.stamp))).collect(),
        compiled: compiled.map(|record| record.record.told(at(record.stamp))).collect(),
    })
}

impl Tuned {
    pub(crate) fn told(self, at_ns: u64) -> TunedKey {
        let winner = self.plan.iter().find(|candidate| candidate.index == self.winner);
        TunedKey {
            at_ns,
            wall_ns: nanoseconds(self.wall),
            table: self.table,
            key: self.entry.key.to_string(),
            winner: winner.map_or_else(|| format!("candidate {}", self.winner), |winner| winner.name.clone()),
            candidates: self.plan.len().max(self.trials.len()),
            trials: self.trials.into_iter().map(|t| Trial { name: t.name, wall_ns: nanoseconds(t.wall) }).collect(),
            stored: self.stored,
        }
    }
}

impl Compiled {
    fn told(self, at_ns: u64) -> CompiledKernel {
        CompiledKernel {
            at_ns,
            wall_ns: nanoseconds(self.duration),
            kernel: short(&self.kernel),
            loaded: self.outcome != "Compiled",
        }
    }
}

/// Answers an environment holds.
#[must_use]
pub(crate) fn known(database: &Database) -> usize {
    let tables = database.namespaces().into_iter().filter(|name| name.starts_with(ANSWERS));
    tables
        .map(|table| {
            let mut count = 0;
            database.scan(&table, &mut |_, _| count += 1);
            count
        })
        .sum()
}

fn short(kernel: &str) -> String {
    type_name_format(kernel, TypeNameFormatLevel::Balanced)
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Counts launches and keeps each one's time on the device, to be read when the work is over.
pub struct Launches {
    log: Arc<Log>,
    _observation: LaunchObservation,
}

#[derive(Default)]
struct Log(Mutex<Vec<Launch>>);

struct Launch {
    kernel: &'static str,
    time: Option<Time>,
}

enum Time {
    Unread(ProfileDuration),
    Read(Duration),
}

impl Log {
    fn timed(&self, kernel: &'static str, time: Time) {
        let mut launches = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(launch) = launches.iter_mut().rev().find(|launch| launch.kernel == kernel && launch.time.is_none())
        {
            launch.time = Some(time);
        }
    }
}

impl LaunchObserver for Log {
    fn launched(&self, kernel: &'static str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(Launch { kernel, time: None });
    }

    fn timing(&self) -> TimingRequest {
        TimingRequest::Deferred
    }

    fn profiled(&self, kernel: &'static str, profile: ProfileDuration) {
        // Host time around a launch is not the kernel's.
        if profile.timing_method() == TimingMethod::Device {
            self.timed(kernel, Time::Unread(profile));
        }
    }

    fn timed(&self, kernel: &'static str, duration: Length, method: TimingMethod) {
        if method == TimingMethod::Device {
            self.timed(kernel, Time::Read(duration));
        }
    }
}

impl Launches {
    /// Begins.
    #[must_use]
    pub fn new() -> Self {
        let log = Arc::new(Log::default());
        Self { _observation: LaunchObservation::new(log.clone()), log }
    }
}

impl Default for Launches {
    fn default() -> Self {
        Self::new()
    }
}

impl LaunchWatch for Launches {
    fn kernels(&self) -> Vec<KernelUse> {
        let launches = std::mem::take(&mut *self.log.0.lock().unwrap_or_else(PoisonError::into_inner));
        let mut kernels: Vec<KernelUse> = Vec::new();
        for launch in launches {
            let name = short(launch.kernel);
            let time = launch.time.and_then(|time| match time {
                Time::Unread(profile) => block_on(profile.resolve()).map(|ticks| ticks.duration()),
                Time::Read(duration) => Some(duration),
            });
            let time = time.map(nanoseconds);
            match kernels.iter_mut().find(|kernel| kernel.kernel == name) {
                Some(kernel) => {
                    kernel.launches += 1;
                    kernel.device_ns = kernel.device_ns.zip(time).map(|(sum, more)| sum + more);
                }
                None => kernels.push(KernelUse {
                    fused: launch.kernel.contains("burn_cubecl_fusion::"),
                    kernel: name,
                    launches: 1,
                    device_ns: time,
                }),
            }
        }
        kernels.sort_by_key(|kernel| std::cmp::Reverse((kernel.device_ns, kernel.launches)));
        kernels
    }
}
