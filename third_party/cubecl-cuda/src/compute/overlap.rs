//! Launches that get ready while the one before them still runs (programmatic dependent launch,
//! from compute capability 9.0 on): a kernel's cubes may take their places early, and wait there
//! until everything before them is done and seen.

use cudarc::driver::sys::{
    self, CUfunction, CUlaunchAttribute, CUlaunchAttributeID, CUlaunchAttributeValue,
    CUlaunchConfig, CUresult, CUstream,
};
use std::ffi::{CStr, CString, c_char, c_void};
use std::sync::atomic::{AtomicBool, Ordering};

static ENABLED: AtomicBool = AtomicBool::new(false);

/// Compute capability that has it, times ten.
const OLDEST: u32 = 90;

/// First what came before is waited for, then the next launch may get ready.
const WAIT: &str = "\tgriddepcontrol.wait;\n\tgriddepcontrol.launch_dependents;\n";

/// Whether kernels that are loaded from now on overlap with what is launched before them, where
/// the device can. Results are the same.
pub fn overlap_launches(on: bool) {
    ENABLED.store(on, Ordering::Relaxed);
}

/// A kernel's code with the wait at its beginning; `None` if that is not wanted, not possible, or
/// the code does not look as expected.
pub(crate) fn waiting(ptx: &[c_char], arch: u32) -> Option<Vec<c_char>> {
    if !ENABLED.load(Ordering::Relaxed) || arch < OLDEST {
        return None;
    }
    // SAFETY: what is handed to the driver ends with a null.
    let text = unsafe { CStr::from_ptr(ptx.as_ptr()) }.to_str().ok()?;
    let bytes = CString::new(with_wait(text)?).ok()?;
    Some(bytes.as_bytes_with_nul().iter().map(|byte| *byte as c_char).collect())
}

/// The wait goes behind the declarations that the one kernel of a module begins with.
fn with_wait(text: &str) -> Option<String> {
    let (entry, others) = (text.find(".entry")?, text.matches(".entry").count() - 1);
    let mut at = entry + text[entry..].find('{')? + 1;
    at += text[at..].find('\n')? + 1;
    for line in text[at..].split_inclusive('\n') {
        let declares = [".reg", ".local", ".shared", ".loc", "//"];
        let line_ = line.trim_start();
        if !line_.is_empty() && !declares.iter().any(|start| line_.starts_with(start)) {
            break;
        }
        at += line.len();
    }
    (others == 0).then(|| [&text[..at], WAIT, &text[at..]].concat())
}

/// Launches a kernel that waits, as `cuLaunchKernel` does one that need not.
///
/// # Safety
///
/// As of `cuLaunchKernel`; the kernel's code comes from [`waiting`].
pub(crate) unsafe fn launch(
    kernel: CUfunction,
    count: (u32, u32, u32),
    dim: (u32, u32, u32),
    shared_mem_bytes: u32,
    stream: CUstream,
    arguments: &mut [*mut c_void],
) -> CUresult {
    let mut attribute = CUlaunchAttribute {
        id: CUlaunchAttributeID::CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION,
        pad: [0; 4],
        value: CUlaunchAttributeValue { programmaticStreamSerializationAllowed: 1 },
    };
    let config = CUlaunchConfig {
        gridDimX: count.0,
        gridDimY: count.1,
        gridDimZ: count.2,
        blockDimX: dim.0,
        blockDimY: dim.1,
        blockDimZ: dim.2,
        sharedMemBytes: shared_mem_bytes,
        hStream: stream,
        attrs: &mut attribute,
        numAttrs: 1,
    };
    // SAFETY: the caller's; the configuration outlives the call.
    unsafe {
        sys::cuLaunchKernelEx(&config, kernel, arguments.as_mut_ptr(), core::ptr::null_mut())
    }
}

#[cfg(test)]
mod tests {
    use super::{WAIT, with_wait};

    const KERNEL: &str = "\
.version 8.4
.target sm_90a
.visible .entry double(
\t.param .u64 double_param_0
)
.maxntid 256
{
\t.reg .b32 \t%r<2>;
\t.reg .b64 \t%rd<2>;

// %bb.0:
";

    #[test]
    fn the_wait_comes_before_the_first_instruction() {
        let code = "\tld.param.u64 \t%rd1, [double_param_0];\n\tret;\n}\n";
        let patched = with_wait(&[KERNEL, code].concat());
        assert_eq!(patched, Some([KERNEL, WAIT, code].concat()));
    }

    #[test]
    fn a_module_of_no_or_several_kernels_stays_as_it_is() {
        assert_eq!(with_wait(".version 8.4\n"), None);
        assert_eq!(with_wait(&[KERNEL, "\tret;\n}\n", KERNEL, "\tret;\n}\n"].concat()), None);
    }
}
