use std::collections::BTreeMap;
use std::env::consts;
use std::fmt::Display;
use std::thread;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sysinfo::{CpuRefreshKind, MemoryRefreshKind, RefreshKind, System};

/// Versions of the crates that the figures depend on most.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Versions {
    /// This program.
    pub burnmark: String,
    /// Burn.
    pub burn: Option<String>,
}

/// Where and with what a run was made; nothing that names the machine or its user.
///
/// A fact that could not be found out is null, with the reason under its name in `missing`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Environment {
    /// Crate versions.
    pub versions: Versions,
    /// Commit this program was built from; `-dirty` where files differed from it.
    pub git_commit: Option<String>,
    /// Compiler this program was built with.
    pub rustc: Option<String>,
    /// Cargo profile this program was built with.
    pub profile: Option<String>,
    /// Whether debug assertions are compiled in; figures of such a build are not worth keeping.
    pub debug_assertions: bool,
    /// Cargo features this program was built with.
    pub features: Vec<String>,
    /// Architecture and operating system this program was built for, such as `x86_64-linux`.
    pub target: String,
    /// The processor's own name.
    pub cpu: Option<String>,
    /// Hardware threads of the machine.
    pub logical_cores: Option<usize>,
    /// Cores of the machine.
    pub physical_cores: Option<usize>,
    /// Threads this process may run at a time: fewer than `logical_cores` under an affinity mask or a quota.
    pub available_threads: Option<usize>,
    /// Memory of the machine, in bytes.
    pub total_memory_bytes: Option<u64>,
    /// Operating system or distribution.
    pub os_name: Option<String>,
    /// Its version.
    pub os_version: Option<String>,
    /// Version of its kernel.
    pub kernel: Option<String>,
    /// Why facts are null, by their names.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub missing: BTreeMap<String, String>,
}

impl Environment {
    /// Reads what the build and the operating system tell; `features` are the cargo features of the build.
    pub fn read(features: Vec<String>) -> Self {
        let mut facts = Facts::default();
        let wanted = RefreshKind::nothing()
            .with_cpu(CpuRefreshKind::nothing())
            .with_memory(MemoryRefreshKind::nothing().with_ram());
        let system = System::new_with_specifics(wanted).map_err(|error| error.to_string());
        let system = system.as_ref().map_err(String::as_str);
        let nonzero = "the operating system does not tell";
        Self {
            versions: Versions {
                burnmark: env!("CARGO_PKG_VERSION").to_owned(),
                burn: facts.built("versions.burn", option_env!("BURNMARK_BURN_VERSION")),
            },
            git_commit: facts.built("git_commit", option_env!("BURNMARK_GIT_COMMIT")),
            rustc: facts.built("rustc", option_env!("BURNMARK_RUSTC")),
            profile: facts.built("profile", option_env!("BURNMARK_PROFILE")),
            debug_assertions: cfg!(debug_assertions),
            features,
            target: format!("{}-{}", consts::ARCH, consts::OS),
            cpu: facts.read("cpu", system.and_then(|system| brand(system).ok_or(nonzero))),
            logical_cores: facts
                .read("logical_cores", system.and_then(|system| positive(system.cpus().len()).ok_or(nonzero))),
            physical_cores: facts.read("physical_cores", System::physical_core_count()),
            available_threads: facts.read("available_threads", thread::available_parallelism().map(usize::from)),
            total_memory_bytes: facts
                .read("total_memory_bytes", system.and_then(|system| positive(system.total_memory()).ok_or(nonzero))),
            os_name: facts.read("os_name", System::name()),
            os_version: facts.read("os_version", System::os_version()),
            kernel: facts.read("kernel", System::kernel_version()),
            missing: facts.missing,
        }
    }
}

fn brand(system: &System) -> Option<String> {
    system.cpus().first().map(|cpu| cpu.brand().trim().to_owned()).filter(|brand| !brand.is_empty())
}

fn positive<N: PartialOrd + Default>(number: N) -> Option<N> {
    (number > N::default()).then_some(number)
}

/// Gathers the reasons of what is missing.
#[derive(Default)]
struct Facts {
    missing: BTreeMap<String, String>,
}

impl Facts {
    fn built(&mut self, name: &str, value: Option<&str>) -> Option<String> {
        let value = value.filter(|value| !value.is_empty()).map(ToOwned::to_owned);
        self.read(name, value.ok_or("not known when this program was built"))
    }

    fn read<T, E: Display>(&mut self, name: &str, value: Result<T, E>) -> Option<T> {
        value.map_err(|error| self.missing.insert(name.to_owned(), error.to_string())).ok()
    }
}
