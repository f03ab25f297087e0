//! burnmark's adapter for Burn's CUDA backend.

pub mod cublaslt;
pub mod inputs;
mod stream;

use std::sync::atomic::{AtomicU32, Ordering};

use burn::tensor::{Device, DeviceType};
use burnmark_backend_api::{
    Backend, Capabilities, CardState, FoundDevice, LaunchWatch, MemoryReading, MemorySources, OpenError, Origin, Setup,
    TuningStore,
};
use burnmark_backend_cubecl as cube;
use nvml_wrapper::Nvml;
use nvml_wrapper::enums::device::UsedGpuMemory;
use nvml_wrapper::error::NvmlError;

/// The CUDA backend, its devices numbered as the driver numbers them.
pub struct Cuda;

const REMEDY: &str = "check that `nvidia-smi` lists a graphics processor; it comes with NVIDIA's driver, and nothing \
                      else of CUDA has to be installed where kernels are compiled by LLVM";

/// The driver's number of the device that this process opened last; a handle does not tell it.
static OPENED: AtomicU32 = AtomicU32::new(0);

const DRIVER_MEMORY: &str = "NVIDIA's management library";

impl Cuda {
    fn unavailable(device: &str, reason: String) -> OpenError {
        OpenError::Unavailable { backend: "cuda", device: device.to_owned(), reason, remedy: REMEDY }
    }

    /// How many devices the driver has. Asked of NVML, which says why there is none where the CUDA library panics.
    fn count() -> Result<usize, String> {
        let nvml = Nvml::init().map_err(|error| format!("NVIDIA's management library: {error}"))?;
        nvml.device_count().map(|count| count as usize).map_err(|error| format!("NVIDIA's management library: {error}"))
    }
}

/// What the driver counts for this process, its context and compiled kernels included.
fn held_by_this_process(device: u32) -> Result<u64, String> {
    let told = |error: NvmlError| format!("NVIDIA's management library: {error}");
    let nvml = Nvml::init().map_err(told)?;
    let device = nvml.device_by_index(device).map_err(told)?;
    let processes = device.running_compute_processes().map_err(told)?;
    let ours = processes.iter().find(|process| process.pid == std::process::id());
    match ours.map(|process| &process.used_gpu_memory) {
        Some(UsedGpuMemory::Used(bytes)) => Ok(*bytes),
        Some(UsedGpuMemory::Unavailable) => Err("the driver does not tell memory by process".to_owned()),
        None => Err("the driver lists no process of this number, as happens in a container".to_owned()),
    }
}

impl Backend for Cuda {
    fn name(&self) -> &'static str {
        "cuda"
    }

    fn remedy(&self) -> &'static str {
        REMEDY
    }

    fn lacks(&self) -> &'static str {
        "nothing is lacking"
    }

    fn devices(&self) -> Result<Vec<FoundDevice>, String> {
        Self::count()?;
        let nvml = Nvml::init().ok();
        let memory = |index: usize| {
            let device = nvml.as_ref()?.device_by_index(u32::try_from(index).ok()?).ok()?;
            device.memory_info().ok().map(|memory| memory.total)
        };
        let devices: Vec<Device> = Device::enumerate(DeviceType::Cuda).into_iter().collect();
        let named = |(index, device): (usize, &Device)| {
            let found = cube::found(format!("cuda:{index}"), device);
            let driver = cube::driver(device).into_iter().chain(found.driver).collect::<Vec<_>>().join(", ");
            FoundDevice { driver: Some(driver), memory_bytes: memory(index), ..found }
        };
        Ok(devices.iter().enumerate().map(named).collect())
    }

    fn configure(&self, setup: &Setup) {
        cube::configure(setup);
    }

    fn record_tuning(&self) -> Option<Origin> {
        Some(cube::record_tuning())
    }

    fn vendor_products(&self) -> Option<Result<String, String>> {
        Some(cublaslt::version().map(|version| format!("cuBLASLt {version}")).map_err(str::to_owned))
    }

    fn tuning_store(&self) -> Option<&'static dyn TuningStore> {
        Some(&cube::Store)
    }

    fn watch_launches(&self) -> Option<Box<dyn LaunchWatch>> {
        Some(Box::new(cube::Launches::new()))
    }

    fn card(&self, device: &Device) -> Option<Result<CardState, String>> {
        cube::card(device)
    }

    fn open(&self, device: &str) -> Result<Device, OpenError> {
        let count = Self::count().map_err(|reason| Self::unavailable(device, reason))?;
        if count == 0 {
            return Err(Self::unavailable(device, "the driver has no device".to_owned()));
        }
        let index = if device.is_empty() { Some(0) } else { device.parse().ok() };
        let index: usize = index.filter(|index| *index < count).ok_or_else(|| OpenError::UnknownDevice {
            backend: "cuda",
            device: device.to_owned(),
            known: (0..count).map(|index| index.to_string()).collect::<Vec<_>>().join(", "),
        })?;
        OPENED.store(index as u32, Ordering::Relaxed);
        Ok(Device::cuda(index))
    }

    fn device_name(&self, device: &Device) -> String {
        cube::device_name(device)
    }

    fn driver(&self, device: &Device) -> Option<String> {
        cube::driver(device)
    }

    fn threads(&self) -> Option<usize> {
        None
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { tf32: true, mixed: true, graph_capture: true, ..cube::CAPABILITIES }
    }

    fn memory_sources(&self) -> MemorySources {
        cube::MEMORY_SOURCES
    }

    fn memory(&self, device: &Device) -> MemoryReading {
        cube::memory(device)
    }

    fn reset_peak(&self, _: &Device) {}

    fn driver_memory(&self, _: &Device) -> Option<(&'static str, Result<u64, String>)> {
        Some((DRIVER_MEMORY, held_by_this_process(OPENED.load(Ordering::Relaxed))))
    }

    fn release(&self, device: &Device) {
        cube::release(device);
    }
}
