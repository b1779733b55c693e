//! What a process and its children cost, from /proc.

use std::fs;

/// CPU seconds of a process tree so far.
pub fn cpu(root: u32) -> f64 {
    // SAFETY of the constant: Linux reports clock ticks of 1/100 s to user space on every architecture that we build for.
    const TICKS: f64 = 100.0;
    tree(root).into_iter().map(|pid| ticks(pid).unwrap_or_default() as f64 / TICKS).sum()
}

/// Proportional memory of a process tree in MiB: shared pages are counted once.
pub fn memory(root: u32) -> f64 {
    let kib = |pid: u32| {
        let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
        let line = text.lines().find(|l| l.starts_with("Pss:")).map(str::to_owned);
        line.and_then(|l| l.split_whitespace().nth(1)?.parse::<f64>().ok()).unwrap_or_default()
    };
    tree(root).into_iter().map(kib).sum::<f64>() / 1024.0
}

/// One, five and fifteen minutes.
pub fn load_averages() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace().take(3).collect::<Vec<_>>().join(" ")
}

fn tree(root: u32) -> Vec<u32> {
    let all: Vec<(u32, u32)> = fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter_map(|pid| Some((pid, parent(pid)?)))
        .collect();
    let mut found = vec![root];
    let mut next = 0;
    while next < found.len() {
        let above = found[next];
        found.extend(all.iter().filter(|(_, parent)| *parent == above).map(|(pid, _)| *pid));
        next += 1;
    }
    found
}

fn fields(pid: u32) -> Option<Vec<String>> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The command's name may hold anything; it ends with the last parenthesis.
    let (_, rest) = text.rsplit_once(')')?;
    Some(rest.split_whitespace().map(str::to_owned).collect())
}

fn parent(pid: u32) -> Option<u32> {
    fields(pid)?.get(1)?.parse().ok()
}

/// User and system, with those of children that have ended.
fn ticks(pid: u32) -> Option<u64> {
    let fields = fields(pid)?;
    (11..15).map(|n| fields.get(n)?.parse::<u64>().ok()).sum()
}
