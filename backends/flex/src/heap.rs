//! A counting allocator: how many bytes of heap are live, and the most there were.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

static LIVE: AtomicU64 = AtomicU64::new(0);
static PEAK: AtomicU64 = AtomicU64::new(0);
static INSTALLED: AtomicBool = AtomicBool::new(false);

/// The system's allocator with two counters. Install it in the program that is measured:
///
/// ```ignore
/// #[global_allocator]
/// static HEAP: burnmark::CountingAllocator = burnmark::CountingAllocator;
/// ```
///
/// Bytes are counted as requested, without the allocator's own overhead. One relaxed addition an allocation, and a
/// maximum only when the live heap passes the peak: far below 1 % of a step (docs/METHOD.md has the measurement).
pub struct CountingAllocator;

fn grow(bytes: usize) {
    let live = LIVE.fetch_add(bytes as u64, Ordering::Relaxed) + bytes as u64;
    if live > PEAK.load(Ordering::Relaxed) {
        PEAK.fetch_max(live, Ordering::Relaxed);
    }
}

fn shrink(bytes: usize) {
    LIVE.fetch_sub(bytes as u64, Ordering::Relaxed);
}

// SAFETY: every call goes to the system's allocator unchanged; only counters are kept beside it.
unsafe impl GlobalAlloc for CountingAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's contract is the system allocator's.
        let pointer = unsafe { System.alloc(layout) };
        if !pointer.is_null() {
            grow(layout.size());
        }
        pointer
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as above.
        let pointer = unsafe { System.alloc_zeroed(layout) };
        if !pointer.is_null() {
            grow(layout.size());
        }
        pointer
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) };
        shrink(layout.size());
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // SAFETY: as above.
        let new = unsafe { System.realloc(pointer, layout, new_size) };
        if !new.is_null() {
            if new_size >= layout.size() {
                grow(new_size - layout.size());
            } else {
                shrink(layout.size() - new_size);
            }
        }
        new
    }
}

/// Whether the program's global allocator is the counting one: an allocation made here must have been counted.
fn installed() -> bool {
    if !INSTALLED.load(Ordering::Relaxed) {
        let before = PEAK.load(Ordering::Relaxed);
        std::hint::black_box(Box::new(1_u64));
        let counted = before > 0 || PEAK.load(Ordering::Relaxed) > 0;
        INSTALLED.store(counted, Ordering::Relaxed);
    }
    INSTALLED.load(Ordering::Relaxed)
}

/// Live and peak bytes, if the counting allocator is installed.
pub(crate) fn usage() -> Option<(u64, u64)> {
    installed().then(|| (LIVE.load(Ordering::Relaxed), PEAK.load(Ordering::Relaxed)))
}

/// Starts a new peak at what is live now.
pub(crate) fn reset_peak() {
    PEAK.store(LIVE.load(Ordering::Relaxed), Ordering::Relaxed);
}
