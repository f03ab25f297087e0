use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Environment, Origin};
use crate::spec::{CellSpec, DeviceSpec, Mode, Peaks, Precision};

/// What a device can do at most, in a unit of its own.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Peak {
    /// The figure; null if it could not be had.
    pub value: Option<f64>,
    /// `FLOP/s` or `byte/s`.
    pub unit: String,
    /// How it was obtained.
    pub source: String,
    /// Why the figure is null.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// The peaks of a device in one mode and precision, and where they come from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PeaksRecord {
    /// Backend and device, such as `flex` or `cuda:0`.
    pub backend: String,
    /// The device's name.
    pub device: String,
    /// The machine's processor.
    pub cpu: Option<String>,
    /// Execution mode.
    pub mode: Mode,
    /// Element type asked for.
    pub precision: Precision,
    /// burnmark's version that measured them.
    pub burnmark: String,
    /// The cargo profile that it was built with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<String>,
    /// When they were measured, RFC 3339 in UTC.
    pub timestamp: String,
    /// Of the matrix product.
    pub flops: Peak,
    /// Of memory.
    pub bytes: Peak,
}

/// How a device's peaks are measured: `src/cell/peaks.rs`.
const SOURCES: [&str; 2] = [
    "fastest of six products of square matrices, and of CubeCL's probes where it has some",
    "fastest of six sums and six scalings of an array larger than caches, and on CubeCL of reading alone and of its probe of copies",
];

impl PeaksRecord {
    /// Of a device by its name, not measured yet.
    #[must_use]
    pub fn unmeasured(spec: DeviceSpec, device: &str, environment: &Environment) -> Self {
        let [flops, bytes] = SOURCES.map(ToOwned::to_owned);
        Self {
            backend: spec.backend,
            device: device.to_owned(),
            cpu: environment.cpu.clone(),
            mode: spec.mode,
            precision: spec.precision,
            burnmark: environment.versions.burnmark.clone(),
            profile: environment.profile.clone(),
            timestamp: jiff::Timestamp::now().to_string(),
            flops: Peak { value: None, unit: "FLOP/s".to_owned(), source: flops, reason: None },
            bytes: Peak { value: None, unit: "byte/s".to_owned(), source: bytes, reason: None },
        }
    }

    /// With what was measured; `why` is the reason of what was not.
    #[must_use]
    pub fn filled(self, measured: Peaks, why: &str) -> Self {
        let filled =
            |peak: Peak, value: Option<f64>| Peak { value, reason: value.is_none().then(|| why.to_owned()), ..peak };
        let (flops, bytes) = (filled(self.flops, measured.flops_per_s), filled(self.bytes, measured.bytes_per_s));
        Self { flops, bytes, ..self }
    }

    /// The figures alone.
    #[must_use]
    pub fn figures(&self) -> Peaks {
        Peaks { flops_per_s: self.flops.value, bytes_per_s: self.bytes.value }
    }

    /// Which device, mode and precision.
    #[must_use]
    pub fn device_spec(&self) -> DeviceSpec {
        DeviceSpec { backend: self.backend.clone(), mode: self.mode, precision: self.precision }
    }

    /// Whether `other` is of the same device, mode, precision, version and build profile.
    #[must_use]
    pub fn same_device(&self, other: &Self) -> bool {
        let key = |it: &Self| {
            let machine = (it.device.clone(), it.cpu.clone());
            (it.device_spec(), machine, it.burnmark.clone(), it.profile.clone())
        };
        key(self) == key(other)
    }

    /// Whether a cell ran on this device in this mode and precision.
    pub(crate) fn is_of(&self, cell: &CellSpec) -> bool {
        self.backend == cell.backend && self.mode == cell.mode && self.precision == cell.precision
    }
}

/// Peaks, and where they are kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct KeptPeaks {
    /// The peaks.
    pub peaks: PeaksRecord,
    /// The file they are kept in; null if they are not.
    pub file: Option<PathBuf>,
}

/// The results file of `burnmark peaks`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PeaksResults {
    /// Where it comes from.
    #[serde(flatten)]
    pub origin: Origin,
    /// One entry a backend, mode and precision.
    pub records: Vec<KeptPeaks>,
}
