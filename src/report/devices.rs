//! What `burnmark devices` prints.

use burnmark_backend_api::{Capabilities, FoundDevice};
use serde::Serialize;

use super::table::table;
use super::units::{MISSING, or_missing};
use crate::spec::Failure;

/// One backend: its devices, or why there are none and what to do about it.
#[derive(Clone, Debug, Serialize)]
pub struct BackendReport {
    backend: String,
    compiled_in: bool,
    devices: Vec<FoundDevice>,
    capabilities: Option<Capabilities>,
    /// Why it cannot do what its capabilities lack.
    #[serde(skip_serializing_if = "Option::is_none")]
    lacks: Option<String>,
    missing: Option<Missing>,
}

#[derive(Clone, Debug, Serialize)]
struct Missing {
    reason: String,
    remedy: String,
}

impl BackendReport {
    /// A backend that this program does not have.
    #[must_use]
    pub fn not_compiled(backend: &str) -> Self {
        let missing = Missing {
            reason: "not compiled in".to_owned(),
            remedy: format!("`cargo run --release --features {backend}` builds it"),
        };
        Self {
            backend: backend.to_owned(),
            compiled_in: false,
            devices: Vec::new(),
            capabilities: None,
            lacks: None,
            missing: Some(missing),
        }
    }

    /// What probing found; `remedy` is what helps where nothing was, `lacks` why the backend cannot do everything.
    #[must_use]
    pub fn new(
        backend: &str,
        found: Option<(Vec<FoundDevice>, Capabilities)>,
        failure: Option<Failure>,
        remedy: &str,
        lacks: &str,
    ) -> Self {
        let (devices, capabilities) = found.map_or((Vec::new(), None), |(devices, can)| (devices, Some(can)));
        let reason = match failure {
            Some(failure) => Some(format!("probing failed: {failure}")),
            None => devices.is_empty().then(|| "no device found".to_owned()),
        };
        let missing = reason.map(|reason| Missing { reason, remedy: remedy.to_owned() });
        let everything = |can: &Capabilities| can.fusion && can.autotune && can.graph_capture;
        let complete = capabilities.as_ref().is_some_and(everything) && devices.iter().all(|found| found.device_clock);
        let lacks = (!devices.is_empty() && !complete).then(|| lacks.to_owned());
        Self { backend: backend.to_owned(), compiled_in: true, devices, capabilities, lacks, missing }
    }
}

/// The devices as a table, best backend first, then what is missing.
#[must_use]
pub fn devices(reports: &[BackendReport]) -> String {
    let header = ["device", "name", "driver", "memory", "types", "fusion", "autotune", "graph capture", "device clock"];
    let mut rows = Vec::new();
    for report in reports {
        let can = |what: fn(&Capabilities) -> bool| {
            report.capabilities.as_ref().map_or(MISSING, |can| if what(can) { "yes" } else { "no" }).to_owned()
        };
        rows.extend(report.devices.iter().map(|device| {
            vec![
                device.device.clone(),
                device.name.clone(),
                device.driver.clone().unwrap_or_else(|| MISSING.to_owned()),
                or_missing(device.memory_bytes.map(|bytes| bytes as f64 / f64::from(1 << 30)), |gib| {
                    format!("{gib:.1} GiB")
                }),
                device.dtypes.join(" "),
                can(|can| can.fusion),
                can(|can| can.autotune),
                can(|can| can.graph_capture),
                if device.device_clock { "yes" } else { "no" }.to_owned(),
            ]
        }));
    }
    let mut text = table(&header.map(str::to_owned), &rows);
    for report in reports {
        if let Some(lacks) = &report.lacks {
            text.push_str(&format!("\n  {}: {lacks}\n", report.backend));
        }
        if let Some(Missing { reason, remedy }) = &report.missing {
            text.push_str(&format!("\n  {}: {reason}; {remedy}\n", report.backend));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::FailureKind;

    #[test]
    fn what_is_there_and_what_is_missing() {
        let device = FoundDevice {
            device: "flex".to_owned(),
            name: "a processor".to_owned(),
            driver: None,
            memory_bytes: Some(3 << 29),
            dtypes: vec!["f64".to_owned(), "f32".to_owned()],
            device_clock: false,
        };
        let can = Capabilities {
            fusion: false,
            autotune: false,
            graph_capture: false,
            tf32: false,
            mixed: false,
            synchronous: true,
        };
        let crash = Failure::new(FailureKind::Crashed, "before the device was open: SIGSEGV");
        insta::assert_snapshot!(devices(&[
            BackendReport::not_compiled("cuda"),
            BackendReport::new("vulkan", None, Some(crash), "install a driver", "no graphs"),
            BackendReport::new("wgpu", Some((Vec::new(), can)), None, "install a driver", "no graphs"),
            BackendReport::new("flex", Some((vec![device], can)), None, "nothing", "executes what is called"),
        ]));
    }
}
