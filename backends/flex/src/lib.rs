//! burnmark's adapter for `flex`, Burn's pure-Rust CPU backend.

mod heap;

use burn::tensor::Device;
use burnmark_backend_api::{
    Backend, Capabilities, FoundDevice, MemoryReading, MemorySources, OpenError, has_clock, supported_dtypes,
};
use sysinfo::{CpuRefreshKind, MemoryRefreshKind, ProcessRefreshKind, ProcessesToUpdate, RefreshKind, System};

pub use heap::CountingAllocator;

/// The `flex` backend. It has one device, the CPU.
pub struct Flex;

impl Backend for Flex {
    fn name(&self) -> &'static str {
        "flex"
    }

    fn remedy(&self) -> &'static str {
        "flex needs nothing but a processor"
    }

    fn lacks(&self) -> &'static str {
        "each operation is executed when it is called, by the processor itself: there is nothing to fuse, tune or \
         record, and no clock but the host's"
    }

    fn devices(&self) -> Result<Vec<FoundDevice>, String> {
        let device = Device::flex();
        Ok(vec![FoundDevice {
            device: "flex".to_owned(),
            name: self.device_name(&device),
            driver: None,
            memory_bytes: total_memory(),
            dtypes: supported_dtypes(&device),
            device_clock: has_clock(&device),
        }])
    }

    fn open(&self, device: &str) -> Result<Device, OpenError> {
        match device {
            "" | "cpu" => {
                keep_freed_memory();
                join_pool();
                Ok(Device::flex())
            }
            other => {
                Err(OpenError::UnknownDevice { backend: "flex", device: other.to_owned(), known: "cpu".to_owned() })
            }
        }
    }

    fn device_name(&self, _: &Device) -> String {
        let system = System::new_with_specifics(RefreshKind::nothing().with_cpu(CpuRefreshKind::nothing()));
        let brand = system.ok().and_then(|system| system.cpus().first().map(|cpu| cpu.brand().trim().to_owned()));
        brand.unwrap_or_else(|| "CPU of unknown name".to_owned())
    }

    fn threads(&self) -> Option<usize> {
        Some(rayon::current_num_threads())
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            fusion: false,
            autotune: false,
            graph_capture: false,
            tf32: false,
            mixed: false,
            synchronous: true,
        }
    }

    fn memory_sources(&self) -> MemorySources {
        MemorySources { in_use: "counting allocator", peak: "counting allocator", reserved: "resident set" }
    }

    fn memory(&self, _: &Device) -> MemoryReading {
        let missing = || "the program does not install burnmark's CountingAllocator".to_owned();
        let usage = heap::usage();
        MemoryReading {
            current: usage.map(|(live, _)| live).ok_or_else(missing),
            peak: usage.map(|(_, peak)| peak).ok_or_else(missing),
            reserved: resident_set().ok_or_else(|| "the operating system does not tell".to_owned()),
            padding: None,
        }
    }

    fn reset_peak(&self, _: &Device) {
        heap::reset_peak();
    }

    fn release(&self, _: &Device) {
        #[cfg(all(target_os = "linux", target_env = "gnu"))]
        // SAFETY: `malloc_trim` may be called at any time.
        unsafe {
            libc::malloc_trim(0);
        }
    }
}

/// Makes the opening thread one of the compute pool's. From a thread outside, every parallel operation is handed over
/// and waited for, which costs a decode step a quarter of its time. A pool that exists already stays as it is.
fn join_pool() {
    if let Err(error) = rayon::ThreadPoolBuilder::new().use_current_thread().build_global() {
        tracing::debug!("the compute pool was there before: {error}");
    }
}

/// Lets the C library's allocator keep large freed blocks instead of returning each to the kernel: fresh pages cost a
/// fault and a clearing every time, which for activations of several megabytes is most of an element-wise operation.
/// All variants run under the same setting. [`Backend::release`] gives the memory back between workloads.
fn keep_freed_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: `mallopt` only changes the allocator's thresholds.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, 1 << 25);
        libc::mallopt(libc::M_TRIM_THRESHOLD, i32::MAX);
    }
}

fn resident_set() -> Option<u64> {
    let pid = sysinfo::get_current_pid().ok()?;
    let mut system = System::new().ok()?;
    let what = ProcessRefreshKind::nothing().with_memory();
    system.refresh_processes_specifics(ProcessesToUpdate::Some(&[pid]), false, what);
    system.process(pid).map(sysinfo::Process::memory)
}

fn total_memory() -> Option<u64> {
    let what = RefreshKind::nothing().with_memory(MemoryRefreshKind::nothing().with_ram());
    Some(System::new_with_specifics(what).ok()?.total_memory())
}
