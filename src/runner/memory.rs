/// Resident set of a process in bytes; `None` if it is gone or the system does not tell.
///
/// Read from `/proc/<pid>/statm`, whose second field counts pages (see proc(5)): one short read, cheap enough to
/// repeat while another core is being timed.
#[cfg(target_os = "linux")]
pub(super) fn resident_bytes(process_id: u32) -> Option<u64> {
    let statm = std::fs::read_to_string(format!("/proc/{process_id}/statm")).ok()?;
    let pages: u64 = statm.split_ascii_whitespace().nth(1)?.parse().ok()?;
    // SAFETY: `sysconf` only looks up a number and touches no memory of ours.
    let page_bytes = u64::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).ok()?;
    Some(pages * page_bytes)
}

/// Resident set of a process: not watched on this system.
#[cfg(not(target_os = "linux"))]
pub(super) fn resident_bytes(_process_id: u32) -> Option<u64> {
    None
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::resident_bytes;

    #[test]
    fn this_process_has_a_plausible_resident_set() {
        let bytes = resident_bytes(std::process::id()).expect("a running process has one");
        assert!((100 << 10..100 << 30).contains(&bytes), "{bytes}");
        assert_eq!(resident_bytes(u32::MAX), None);
    }
}
