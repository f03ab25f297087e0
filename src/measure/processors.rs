//! What Linux tells of its processors: how busy they were, for whom, and how often they were throttled.

use std::path::{Path, PathBuf};

use nix::sys::resource::{UsageWho, getrusage};
use nix::unistd::{SysconfVar, sysconf};

/// `/proc/stat` rounds to ticks: so many of a window's may be no one's.
const ROUNDING_TICKS: u64 = 2;

const NS_PER_S: u64 = 1_000_000_000;

/// Processor time since the system, and this process, started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Load {
    /// Ticks in which a processor was busy.
    pub busy_ticks: u64,
    /// Length of a tick, in nanoseconds.
    pub tick_ns: u64,
    /// This process's processor time, in nanoseconds.
    pub own_ns: u64,
    pub processors: u64,
}

impl Load {
    /// The load now; `root` is the root of the file system. `None` where there is no `/proc/stat`.
    pub fn read(root: &Path) -> Option<Self> {
        let (busy_ticks, processors) = busy(&std::fs::read_to_string(root.join("proc/stat")).ok()?)?;
        let ticks_per_second = sysconf(SysconfVar::CLK_TCK).ok()??;
        let own = getrusage(UsageWho::RUSAGE_SELF).ok()?;
        let own_us =
            [own.user_time(), own.system_time()].map(|time| time.tv_sec() as u64 * 1_000_000 + time.tv_usec() as u64);
        Some(Self {
            busy_ticks,
            tick_ns: NS_PER_S / ticks_per_second as u64,
            own_ns: own_us.iter().sum::<u64>() * 1000,
            processors,
        })
    }

    /// The share of all processors' time that others used in the `wall_ns` between this reading and a later one.
    pub fn others(&self, later: &Self, wall_ns: u64) -> f64 {
        let ticks = later.busy_ticks.saturating_sub(self.busy_ticks).saturating_sub(ROUNDING_TICKS);
        let others_ns = (ticks * self.tick_ns).saturating_sub(later.own_ns.saturating_sub(self.own_ns));
        others_ns as f64 / (wall_ns * self.processors) as f64
    }
}

/// Busy ticks of all processors, and how many processors there are, of the text of `/proc/stat`: user, nice, system,
/// irq, softirq, steal. Time of guests is part of user and nice.
fn busy(stat: &str) -> Option<(u64, u64)> {
    let all = stat.lines().find_map(|line| line.strip_prefix("cpu "))?;
    let ticks: Vec<u64> = all.split_whitespace().map_while(|word| word.parse().ok()).collect();
    let [user, nice, system, _idle, _iowait, irq, softirq, steal, ..] = ticks[..] else { return None };
    let one = |line: &&str| line.strip_prefix("cpu").is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
    let processors = stat.lines().filter(one).count() as u64;
    let busy = [user, nice, system, irq, softirq, steal].into_iter().try_fold(0, u64::checked_add)?;
    (processors > 0).then_some((busy, processors))
}

/// The files that count how often each processor was throttled; none on virtual machines.
#[derive(Clone, Debug, Default)]
pub(super) struct Throttling(Vec<PathBuf>);

impl Throttling {
    /// Looks for the files; `root` is the root of the file system.
    pub fn find(root: &Path) -> Self {
        let processors = std::fs::read_dir(root.join("sys/devices/system/cpu")).into_iter().flatten().flatten();
        let counters = processors.flat_map(|processor| {
            ["core_throttle_count", "package_throttle_count"]
                .map(|name| processor.path().join("thermal_throttle").join(name))
        });
        Self(counters.filter(|path| path.exists()).collect())
    }

    /// How often so far.
    pub fn count(&self) -> u64 {
        self.0.iter().filter_map(|path| std::fs::read_to_string(path).ok()?.trim().parse::<u64>().ok()).sum()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A machine's files, as far as they are read.
    fn machine(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().expect("a temporary folder");
        for (name, text) in files {
            let path = root.path().join(name);
            std::fs::create_dir_all(path.parent().expect("a folder")).expect("made");
            std::fs::write(path, text).expect("written");
        }
        root
    }

    #[test]
    fn idle_time_and_waiting_are_not_busy() {
        let stat = "cpu  1 20 300 4000 50000 6 70 800 9 9\ncpu0 1 2 3\ncpu11 1 2 3\nintr 5\nctxt 7\n";
        let root = machine(&[("proc/stat", stat)]);
        let load = Load::read(root.path()).expect("it is there");
        assert_eq!((load.busy_ticks, load.processors), (1 + 20 + 300 + 6 + 70 + 800, 2));
        assert!(load.own_ns > 0 && load.tick_ns > 0);
        assert_eq!(Load::read(&root.path().join("elsewhere")), None);
    }

    #[test]
    fn others_are_what_is_left_of_the_busy_time() {
        let before = Load { busy_ticks: 100, tick_ns: 10_000_000, own_ns: 7, processors: 2 };
        let after = |ticks: u64, own_ns: u64| Load { busy_ticks: 100 + ticks, own_ns: 7 + own_ns, ..before };
        let percent = |later: Load| (before.others(&later, 250_000_000) * 100.0).round() as u64;
        assert_eq!(percent(after(50, 500_000_000)), 0, "all of it is ours");
        assert_eq!(percent(after(27, 0)), 50, "two ticks are rounding");
        assert_eq!(percent(after(52, 250_000_000)), 50);
        assert_eq!(percent(after(1, 0)), 0);
    }

    #[test]
    fn throttling_is_the_sum_of_all_counters() {
        let counter =
            |cpu: &str, name: &str| format!("sys/devices/system/cpu/{cpu}/thermal_throttle/{name}_throttle_count");
        let (core, package, other) = (counter("cpu0", "core"), counter("cpu0", "package"), counter("cpu1", "core"));
        let root =
            machine(&[(&core, "3\n"), (&package, "40\n"), (&other, "500\n"), ("sys/devices/system/cpu/online", "0-1")]);
        assert_eq!(Throttling::find(root.path()).count(), 543);
        assert_eq!(Throttling::find(&root.path().join("elsewhere")).count(), 0);
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "(cpu[0-9 ]{0,40}\n|[ -~]{0,20}\n){0,6}") {
            if let Some((_, processors)) = busy(&text) {
                prop_assert!(processors > 0 && text.contains("cpu "));
            }
        }

        #[test]
        fn what_linux_writes_is_read(ticks in prop::array::uniform10(0..1_u64 << 40), processors in 1..300_usize) {
            let line = |name: String| name + &ticks.map(|ticks| format!(" {ticks}")).concat() + "\n";
            let text = line("cpu ".to_owned()) + &(0..processors).map(|i| line(format!("cpu{i}"))).collect::<String>();
            let expected = ticks[..8].iter().sum::<u64>() - ticks[3] - ticks[4];
            prop_assert_eq!(busy(&text), Some((expected, processors as u64)));
        }
    }
}
