use std::process::ExitCode;

use super::executor::Children;
use super::kept_peaks::PeaksCache;
use super::output::{complain, pretty, print, save};
use super::{CommandError, caches, planned};
use crate::backends;
use crate::cli::PeaksArgs;
use crate::config;
use crate::model::Registry;
use crate::record::{KeptPeaks, Origin, PeaksRecord, PeaksResults, store};
use crate::report::peaks::peaks;
use crate::runner::{Executor, StopFlag};
use crate::spec::{DeviceSpec, Job, Peaks};

/// `burnmark peaks`: what every device of the experiment can do at most, as it is kept, else measured.
pub(crate) fn run(arguments: &PeaksArgs, registry: &Registry) -> Result<ExitCode, CommandError> {
    let experiment = config::load(arguments.experiment.config.as_deref(), &arguments.experiment.flags())?.experiment;
    let plan = planned(&experiment, registry)?;
    let output = arguments.experiment.output.as_deref();
    if let Some(path) = output {
        store::check_writable(path)?;
    }
    let mut specs: Vec<DeviceSpec> = Vec::new();
    for spec in plan.cells.iter().map(DeviceSpec::of) {
        if !specs.contains(&spec) {
            specs.push(spec);
        }
    }
    let stop = StopFlag::install()?;
    let executor = Children::new(&experiment.limits, stop.clone(), arguments.print.verbose)?;
    let cache = PeaksCache::new(&executor);
    let mut results = PeaksResults { origin: Origin::here(backends::features()), records: Vec::new() };
    for spec in specs {
        // Peaks are kept under the device's name, which the device tells.
        let job = Job::Open { spec: spec.clone(), cache: Some(caches::kept()), peaks: false };
        let done = executor.execute(&job, &mut |_| {});
        let name = done.device.map_or_else(|| spec.backend.clone(), |device| device.name);
        let wanted = PeaksRecord::unmeasured(spec, &name, &results.origin.environment);
        let found = match done.failure {
            Some(failure) => KeptPeaks { peaks: wanted.filled(Peaks::default(), &failure.to_string()), file: None },
            None => cache.found(wanted, arguments.refresh),
        };
        let PeaksRecord { backend, flops, bytes, .. } = &found.peaks;
        if let Some(reason) = flops.reason.as_ref().or(bytes.reason.as_ref()) {
            complain(&format!("error: peaks of {backend}: {reason}"));
        }
        results.records.push(found);
        if stop.is_set() {
            break;
        }
    }
    let saved = output.is_none_or(|path| save(path, &results));
    if arguments.print.json {
        print(&pretty(&results))?;
    } else if !arguments.print.quiet {
        print(&peaks(&results))?;
    }
    let missing = |it: &KeptPeaks| it.peaks.flops.value.is_none() || it.peaks.bytes.value.is_none();
    let failed = !saved || results.records.iter().any(missing);
    Ok(if stop.is_set() { ExitCode::from(130) } else { ExitCode::from(u8::from(failed)) })
}
