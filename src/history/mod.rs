//! Runs kept in an embedded database, so that a figure can be followed over commits.

use std::path::{Path, PathBuf};

use rusqlite::{Connection, OptionalExtension, params};
use serde::Serialize;
use thiserror::Error;

use crate::record::{Metric, Results};
use crate::stats::{Sample, Summary};

const TABLES: &str = "
    CREATE TABLE IF NOT EXISTS run (
        id INTEGER PRIMARY KEY,
        timestamp TEXT NOT NULL UNIQUE,
        git_commit TEXT,
        processor TEXT,
        command TEXT NOT NULL
    );
    CREATE TABLE IF NOT EXISTS figure (
        run INTEGER NOT NULL REFERENCES run(id) ON DELETE CASCADE,
        cell TEXT NOT NULL,
        metric TEXT NOT NULL,
        mean_ms REAL NOT NULL,
        std_ms REAL NOT NULL,
        samples INTEGER NOT NULL,
        rounds INTEGER NOT NULL,
        peak_mb REAL,
        PRIMARY KEY (run, cell, metric)
    );
    PRAGMA user_version = 1;
";

/// Why the history could not be read or written.
#[derive(Debug, Error)]
pub enum HistoryError {
    /// Its folder cannot be made.
    #[error("history `{path}`: its folder cannot be made: {source}; choose another file with --database")]
    Folder {
        /// The database.
        path: PathBuf,
        /// What the operating system says.
        source: std::io::Error,
    },
    /// The database does not work.
    #[error("history `{path}`: {source}; choose another file with --database, or move it away")]
    Database {
        /// The database.
        path: PathBuf,
        /// What it says.
        source: rusqlite::Error,
    },
    /// Another version of this program made it.
    #[error("history `{path}`: has version {found}, this program reads version 1; choose another file with --database")]
    OtherVersion {
        /// The database.
        path: PathBuf,
        /// The version in it.
        found: i64,
    },
}

/// The runs that were kept.
pub struct History {
    path: PathBuf,
    database: Connection,
}

/// One figure of one run.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Point {
    /// When the run began.
    pub timestamp: String,
    /// Commit of the program that made it.
    pub git_commit: Option<String>,
    /// The processor's name.
    pub processor: Option<String>,
    /// The cell.
    pub cell: String,
    /// Arithmetic mean over all rounds, in milliseconds.
    pub mean_ms: f64,
    /// Population standard deviation.
    pub std_ms: f64,
    /// Samples and processes behind it.
    pub samples: usize,
    /// Processes.
    pub rounds: usize,
    /// Peak memory of the workload, in MB of 2^20 bytes.
    pub peak_mb: Option<f64>,
}

impl History {
    /// Opens a database; makes it if it is not there.
    pub fn open(path: &Path) -> Result<Self, HistoryError> {
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            std::fs::create_dir_all(folder).map_err(|source| HistoryError::Folder { path: path.to_owned(), source })?;
        }
        let failed = |source| HistoryError::Database { path: path.to_owned(), source };
        let database = Connection::open(path).map_err(failed)?;
        let found: i64 = database.query_row("PRAGMA user_version", [], |row| row.get(0)).map_err(failed)?;
        if !matches!(found, 0 | 1) {
            return Err(HistoryError::OtherVersion { path: path.to_owned(), found });
        }
        database.execute_batch(TABLES).map_err(failed)?;
        Ok(Self { path: path.to_owned(), database })
    }

    /// Keeps a run, whole or not at all; false if it is there already.
    pub fn add(&mut self, results: &Results) -> Result<bool, HistoryError> {
        let path = self.path.clone();
        self.insert(results).map_err(|source| HistoryError::Database { path, source })
    }

    fn insert(&mut self, results: &Results) -> Result<bool, rusqlite::Error> {
        let all = self.database.transaction()?;
        let known = all.query_row("SELECT id FROM run WHERE timestamp = ?1", [&results.timestamp], |row| row.get(0));
        if known.optional()?.is_some_and(|_: i64| true) {
            return Ok(false);
        }
        let environment = &results.environment;
        all.execute(
            "INSERT INTO run (timestamp, git_commit, processor, command) VALUES (?1, ?2, ?3, ?4)",
            params![results.timestamp, environment.git_commit, environment.cpu, results.command.join(" ")],
        )?;
        let run = all.last_insert_rowid();
        for cell in results.cells.iter().filter(|cell| cell.failure().is_none()) {
            for metric in Metric::ALL {
                let rounds = metric.rounds(cell.workloads());
                let Ok(sample) = Sample::new(rounds.concat()) else { continue };
                let summary = Summary::of(&sample);
                let peak = metric.peak_mb(cell.workloads()).map(|(mb, _)| mb);
                all.execute(
                    "INSERT INTO figure VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
                    params![
                        run,
                        cell.spec.label(),
                        metric.to_string(),
                        summary.mean,
                        summary.std,
                        summary.count as i64,
                        rounds.len() as i64,
                        peak
                    ],
                )?;
            }
        }
        all.commit()?;
        Ok(true)
    }

    /// A metric of every cell whose label holds `cell`, cell by cell in the order of time.
    pub fn points(&self, metric: Metric, cell: &str) -> Result<Vec<Point>, HistoryError> {
        let read = || -> Result<Vec<Point>, rusqlite::Error> {
            let mut query = self.database.prepare(
                "SELECT timestamp, git_commit, processor, cell, mean_ms, std_ms, samples, rounds, peak_mb
                 FROM figure JOIN run ON run.id = figure.run
                 WHERE metric = ?1 AND instr(cell, ?2) > 0 ORDER BY cell, timestamp",
            )?;
            let point = |row: &rusqlite::Row| {
                Ok(Point {
                    timestamp: row.get(0)?,
                    git_commit: row.get(1)?,
                    processor: row.get(2)?,
                    cell: row.get(3)?,
                    mean_ms: row.get(4)?,
                    std_ms: row.get(5)?,
                    samples: row.get::<_, i64>(6)? as usize,
                    rounds: row.get::<_, i64>(7)? as usize,
                    peak_mb: row.get(8)?,
                })
            };
            query.query_map(params![metric.to_string(), cell], point)?.collect()
        };
        read().map_err(|source| HistoryError::Database { path: self.path.clone(), source })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::fixtures::measured;

    #[test]
    fn a_run_is_kept_once_and_found_again() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("deep/history.db");
        let mut results = measured();
        let mut history = History::open(&path).expect("it is new");
        assert!(history.add(&results).expect("it is added"));
        assert!(!history.add(&results).expect("it is known"));
        results.timestamp = "2026-01-02T00:00:00Z".to_owned();
        assert!(History::open(&path).expect("it is there").add(&results).expect("it is added"));
        let points = history.points(Metric::Training, "flex/example").expect("it reads");
        assert_eq!(points.len(), 2, "the cell that failed is not kept: {points:?}");
        assert_eq!((points[0].mean_ms, points[0].samples, points[0].rounds), (20.0, 2, 1));
        assert!(points[0].timestamp < points[1].timestamp);
        assert!(history.points(Metric::Training, "nowhere").expect("it reads").is_empty());
    }

    #[test]
    fn a_file_that_is_no_history_is_left_alone() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("text.db");
        std::fs::write(&path, "not a database, but a text that somebody wants to keep").expect("written");
        let error = History::open(&path).err().expect("it is refused").to_string();
        assert!(error.contains("--database"), "{error}");
        let later = folder.path().join("later.db");
        Connection::open(&later).and_then(|database| database.execute_batch("PRAGMA user_version = 2")).expect("made");
        assert!(matches!(History::open(&later), Err(HistoryError::OtherVersion { found: 2, .. })));
    }
}
