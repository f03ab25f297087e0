//! burnmark's adapter for Burn's LibTorch backend: PyTorch's own kernels, without Python.

#![expect(deprecated, reason = "Burn marks LibTorch deprecated; it stays as the anchor to PyTorch's kernels")]

use std::path::{Path, PathBuf};

use burn::tensor::Device;
use burnmark_backend_api::{
    Backend, Capabilities, FoundDevice, MemoryReading, MemorySources, OpenError, has_clock, supported_dtypes,
};
use sysinfo::{ProcessRefreshKind, ProcessesToUpdate, System};

/// The LibTorch backend: `tch:cpu`, `tch:cuda:0`, `tch:mps`.
pub struct Tch;

impl Tch {
    fn known() -> Vec<String> {
        let cuda = (0..tch::Cuda::device_count()).map(|index| format!("cuda:{index}"));
        let mps = tch::utils::has_mps().then(|| "mps".to_owned());
        std::iter::once("cpu".to_owned()).chain(cuda).chain(mps).collect()
    }

    fn handle(device: &str) -> Option<Device> {
        match device.split_once(':') {
            Some(("cuda", index)) => Some(Device::libtorch_cuda(index.parse::<usize>().ok()?)),
            None if device == "cpu" => Some(Device::libtorch()),
            None if device == "mps" => Some(Device::libtorch_mps()),
            _ => None,
        }
    }

    fn is_cpu(device: &Device) -> bool {
        *device == Device::libtorch()
    }
}

impl Backend for Tch {
    fn name(&self) -> &'static str {
        "tch"
    }

    fn remedy(&self) -> &'static str {
        "scripts/libtorch.sh sets LibTorch up"
    }

    fn lacks(&self) -> &'static str {
        "Burn calls LibTorch's kernels one by one: nothing is fused, tuned or recorded, and their clock is not reached"
    }

    fn devices(&self) -> Result<Vec<FoundDevice>, String> {
        let found = |name: String| {
            let handle = Self::handle(&name)?;
            Some(FoundDevice {
                name: self.device_name(&handle),
                driver: libtorch().map(|(library, folder)| format!("{library} in {}", folder.display())),
                memory_bytes: None,
                dtypes: supported_dtypes(&handle),
                device_clock: has_clock(&handle),
                device: format!("tch:{name}"),
            })
        };
        Ok(Self::known().into_iter().filter_map(found).collect())
    }

    fn open(&self, device: &str) -> Result<Device, OpenError> {
        let known = Self::known();
        let wanted = match device {
            "" => "cpu",
            "cuda" => "cuda:0",
            other => other,
        };
        known.iter().find(|name| *name == wanted).and_then(|name| Self::handle(name)).ok_or_else(|| {
            OpenError::UnknownDevice { backend: "tch", device: device.to_owned(), known: known.join(", ") }
        })
    }

    fn device_name(&self, device: &Device) -> String {
        if !Self::is_cpu(device) {
            return format!("LibTorch {device:?}");
        }
        let system =
            System::new_with_specifics(sysinfo::RefreshKind::nothing().with_cpu(sysinfo::CpuRefreshKind::nothing()));
        let brand = system.ok().and_then(|system| system.cpus().first().map(|cpu| cpu.brand().trim().to_owned()));
        brand.unwrap_or_else(|| "CPU of unknown name".to_owned())
    }

    fn driver(&self, _: &Device) -> Option<String> {
        libtorch().map(|(library, _)| library)
    }

    fn threads(&self) -> Option<usize> {
        usize::try_from(tch::get_num_threads()).ok()
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            fusion: false,
            autotune: false,
            graph_capture: false,
            tf32: false,
            mixed: false,
            synchronous: false,
        }
    }

    fn memory_sources(&self) -> MemorySources {
        MemorySources { in_use: "LibTorch's allocator", peak: "LibTorch's allocator", reserved: "resident set" }
    }

    fn memory(&self, device: &Device) -> MemoryReading {
        let missing = || Err("LibTorch's C++ interface, as Burn reaches it, does not count its allocations".to_owned());
        let reserved = if Self::is_cpu(device) {
            resident_set().ok_or_else(|| "the operating system does not tell".to_owned())
        } else {
            missing()
        };
        MemoryReading { current: missing(), peak: missing(), reserved, padding: None }
    }

    fn reset_peak(&self, _: &Device) {}

    fn release(&self, _: &Device) {}
}

/// Which LibTorch the loader found, and where.
fn libtorch() -> Option<(String, PathBuf)> {
    let maps = std::fs::read_to_string("/proc/self/maps").ok()?;
    let library =
        maps.lines().find_map(|line| line.find('/').map(|at| &line[at..]).filter(|path| is_libtorch(path)))?;
    let folder = Path::new(library).parent()?;
    let version = version(folder.parent()?).unwrap_or_else(|| "of unknown version".to_owned());
    Some((format!("LibTorch {version}"), folder.to_owned()))
}

fn is_libtorch(path: &str) -> bool {
    path.ends_with("/libtorch_cpu.so") || path.ends_with("/libtorch.so")
}

/// From `build-version` of a LibTorch by itself, or from `version.py` of the one within PyTorch.
fn version(root: &Path) -> Option<String> {
    if let Ok(version) = std::fs::read_to_string(root.join("build-version")) {
        return Some(version.trim().to_owned());
    }
    let python = std::fs::read_to_string(root.join("version.py")).ok()?;
    Some(python.lines().find_map(|line| line.strip_prefix("__version__ = "))?.trim_matches('\'').to_owned())
}

fn resident_set() -> Option<u64> {
    let pid = sysinfo::get_current_pid().ok()?;
    let mut system = System::new().ok()?;
    let what = ProcessRefreshKind::nothing().with_memory();
    system.refresh_processes_specifics(ProcessesToUpdate::Some(&[pid]), false, what);
    system.process(pid).map(sysinfo::Process::memory)
}
