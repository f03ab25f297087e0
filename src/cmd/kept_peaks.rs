//! Peaks of devices: measured once by a child of their own, then kept beside the tuning cache.

use std::path::PathBuf;

use super::caches;
use crate::record::{KeptPeaks, PeaksRecord, store};
use crate::runner::Executor;
use crate::spec::Job;

/// Variable that names the folder of measured peaks.
const VARIABLE: &str = "BURNMARK_PEAKS_CACHE";

/// The peaks that are kept, and who measures others.
pub(super) struct PeaksCache<'a> {
    folder: PathBuf,
    executor: &'a dyn Executor,
}

impl<'a> PeaksCache<'a> {
    pub(super) fn new(executor: &'a dyn Executor) -> Self {
        let folder = std::env::var_os(VARIABLE).map_or_else(|| caches::of_user().join("peaks"), PathBuf::from);
        Self { folder, executor }
    }

    /// The peaks that are kept, or measured if they are not or `anew`; a failure is a reason and is not kept.
    pub(super) fn found(&self, wanted: PeaksRecord, anew: bool) -> KeptPeaks {
        let path = self.folder.join(file_name(&wanted));
        let text = if anew { None } else { std::fs::read(&path).ok() };
        let kept = text.and_then(|text| serde_json::from_slice::<PeaksRecord>(&text).ok());
        if let Some(peaks) = kept.filter(|kept| kept.same_device(&wanted)) {
            return KeptPeaks { peaks, file: Some(path) };
        }
        let job = Job::Open { spec: wanted.device_spec(), cache: Some(caches::kept()), peaks: true };
        let done = self.executor.execute(&job, &mut |_| {});
        let why = done.failure.map_or_else(|| "the child told none".to_owned(), |failure| failure.to_string());
        let peaks = wanted.filled(done.peaks.unwrap_or_default(), &why);
        let complete = peaks.flops.value.is_some() && peaks.bytes.value.is_some();
        // A cache that cannot be written costs the next run a measurement, nothing else.
        let kept =
            complete && std::fs::create_dir_all(&self.folder).is_ok() && store::write_atomic(&path, &peaks).is_ok();
        KeptPeaks { peaks, file: kept.then_some(path) }
    }
}

/// A name of the device's own, by mode, precision and build profile.
fn file_name(of: &PeaksRecord) -> String {
    let profile = of.profile.as_deref().unwrap_or("unknown");
    let name = format!("{} {} {} {} {profile}", of.backend, of.device, of.mode, of.precision);
    let words: Vec<&str> = name.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()).collect();
    format!("{}.json", words.join("-"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::fixtures;
    use crate::runner::{Script, ScriptedExecutor};
    use crate::spec::{Event, Failure, FailureKind, Peaks};

    fn script(flops: f64) -> Script {
        let peaks = Peaks { flops_per_s: Some(flops), bytes_per_s: Some(1e9) };
        Script { events: vec![Event::Peaks(peaks), Event::Finished], ..Script::default() }
    }

    #[test]
    fn peaks_are_measured_once_for_each_device_and_build() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let executor = ScriptedExecutor::new([1e12, 2e12, 3e12, 4e12].map(script));
        let cache = PeaksCache { folder: folder.path().join("new"), executor: &executor };
        let found = |wanted: &PeaksRecord, anew| cache.found(wanted.clone(), anew).peaks.flops.value;
        let wanted = fixtures::peaks();
        let other = PeaksRecord { device: "Another CPU".to_owned(), ..wanted.clone() };
        let debug = PeaksRecord { profile: Some("debug".to_owned()), ..wanted.clone() };
        for _ in 0..2 {
            assert_eq!([&wanted, &other, &debug].map(|it| found(it, false)), [1e12, 2e12, 3e12].map(Some));
        }
        assert_eq!([true, false].map(|anew| found(&wanted, anew)), [Some(4e12); 2]);
        let newer = PeaksRecord { burnmark: "9.9.9".to_owned(), ..wanted };
        let why = cache.found(newer, false).peaks.flops.reason.expect("no script is left");
        assert!(why.contains("no script left"), "{why}");
    }

    #[test]
    fn what_could_not_be_measured_is_not_kept() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let lost = Script { failure: Some(Failure::new(FailureKind::Crashed, "lost")), ..Script::default() };
        let executor = ScriptedExecutor::new([lost]);
        let cache = PeaksCache { folder: folder.path().to_owned(), executor: &executor };
        let KeptPeaks { peaks, file } = cache.found(fixtures::peaks(), false);
        assert_eq!((peaks.bytes.value, peaks.bytes.reason.as_deref(), file), (None, Some("crashed: lost"), None));
        assert_eq!(folder.path().read_dir().expect("a folder").count(), 0);
    }
}
