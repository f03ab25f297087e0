//! The results file on disk: written whole or not at all, read with errors that say what to do.

use std::fs::{self, File};
use std::io::{self, BufWriter, ErrorKind, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::error::Category;
use tempfile::{Builder, NamedTempFile};
use thiserror::Error;

use super::upgrade::lifted;
use super::{Results, SCHEMA_VERSION};

/// Why results could not be written or read.
#[derive(Debug, Error)]
pub enum StoreError {
    /// The folder of the file is not there.
    #[error("results file `{path}`: folder `{folder}` does not exist; create it or choose another path with --output")]
    NoFolder {
        /// The file.
        path: PathBuf,
        /// Its folder.
        folder: PathBuf,
    },
    /// The path leads to something that is not a file.
    #[error("results file `{path}`: is {what}, not a file; choose the path of a file with --output")]
    NotAFile {
        /// The path.
        path: PathBuf,
        /// What it is.
        what: &'static str,
    },
    /// An existing file is write-protected.
    #[error("results file `{path}`: is write-protected; change its permissions or choose another path with --output")]
    ReadOnlyFile {
        /// The file.
        path: PathBuf,
    },
    /// No file can be made in the folder.
    #[error(
        "results file `{path}`: folder `{folder}` does not allow new files; change its permissions or choose another \
         path with --output"
    )]
    ReadOnlyFolder {
        /// The file.
        path: PathBuf,
        /// Its folder.
        folder: PathBuf,
    },
    /// There is no room.
    #[error(
        "results file `{path}`: the disk is full or the quota is used up; free some space or choose another path with \
         --output (a file from before is unchanged)"
    )]
    DiskFull {
        /// The file.
        path: PathBuf,
    },
    /// Something else went wrong while writing.
    #[error("results file `{path}`: cannot be written: {source}; choose another path with --output")]
    Write {
        /// The file.
        path: PathBuf,
        /// What the operating system says.
        source: io::Error,
    },
    /// There is no file to read.
    #[error("results file `{path}`: does not exist; give the path of the results of an earlier run")]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// The file cannot be read.
    #[error("results file `{path}`: cannot be read: {source}; check the path and its permissions")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the operating system says.
        source: io::Error,
    },
    /// The file ends too early.
    #[error(
        "results file `{path}`: ends in the middle of line {line}; it was cut off: restore a copy, or move it away and \
         run again"
    )]
    Truncated {
        /// The file.
        path: PathBuf,
        /// Where it ends, from 1.
        line: usize,
    },
    /// The file holds something else.
    #[error("results file `{path}`: does not hold results: {source}; give the path of the results of an earlier run")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Where and why.
        source: serde_json::Error,
    },
    /// The file was written by a later version of this program, or by none.
    #[error(
        "results file `{path}`: has schema version {found}, this program reads versions 1 to {SCHEMA_VERSION}; use the \
         program that wrote it or a later one, or move it away and run again"
    )]
    OtherVersion {
        /// The file.
        path: PathBuf,
        /// The version in it.
        found: serde_json::Value,
    },
}

/// Tells whether results can be written to a path, before anything is measured; leaves no trace.
pub fn check_writable(path: &Path) -> Result<(), StoreError> {
    let target = Target::of(path)?;
    target.temporary_file().map(drop).map_err(|error| target.error(error))
}

/// Replaces the file at a path: a reader sees either the old results or the new ones, even after a power cut.
pub fn write_atomic(path: &Path, results: &impl Serialize) -> Result<(), StoreError> {
    let target = Target::of(path)?;
    let json = |to: &mut dyn Write| {
        serde_json::to_writer_pretty(&mut *to, results)?;
        to.write_all(b"\n")
    };
    target.replace(json).map_err(|error| target.error(error))
}

/// As [`write_atomic`], for what is text already.
pub fn write_text(path: &Path, text: &str) -> Result<(), StoreError> {
    let target = Target::of(path)?;
    target.replace(|to| to.write_all(text.as_bytes())).map_err(|error| target.error(error))
}

/// Reads a results file of this version or an older one.
pub fn read(path: &Path) -> Result<Results, StoreError> {
    #[derive(Deserialize)]
    struct Versioned {
        #[serde(default)]
        schema_version: serde_json::Value,
    }

    let malformed = |source: serde_json::Error| match source.classify() {
        Category::Eof => StoreError::Truncated { path: path.to_owned(), line: source.line() },
        _ => StoreError::Malformed { path: path.to_owned(), source },
    };
    let text = fs::read_to_string(path).map_err(|source| match source.kind() {
        ErrorKind::NotFound => StoreError::Missing { path: path.to_owned() },
        _ => StoreError::Read { path: path.to_owned(), source },
    })?;
    let versioned: Versioned = serde_json::from_str(&text).map_err(malformed)?;
    if versioned.schema_version == SCHEMA_VERSION {
        return serde_json::from_str(&text).map_err(malformed);
    }
    let version = versioned.schema_version.as_u64().and_then(|version| u32::try_from(version).ok());
    let older = serde_json::from_str(&text).map_err(malformed)?;
    match version.and_then(|version| lifted(older, version)) {
        Some(results) => serde_json::from_value(results.into()).map_err(malformed),
        None => Err(StoreError::OtherVersion { path: path.to_owned(), found: versioned.schema_version }),
    }
}

/// A path that results may be written to.
struct Target<'a> {
    /// As the user gave it.
    path: &'a Path,
    /// The same with symbolic links followed, so that a link is kept and its target replaced.
    file: PathBuf,
    folder: PathBuf,
}

impl<'a> Target<'a> {
    fn of(path: &'a Path) -> Result<Self, StoreError> {
        let file = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        let folder = match file.parent() {
            Some(folder) if folder.as_os_str().is_empty() => PathBuf::from("."),
            Some(folder) => folder.to_owned(),
            None => file.clone(),
        };
        if let Ok(metadata) = fs::metadata(&file) {
            if metadata.is_dir() {
                return Err(StoreError::NotAFile { path: path.to_owned(), what: "a folder" });
            }
            if !metadata.is_file() {
                return Err(StoreError::NotAFile { path: path.to_owned(), what: "a device or pipe" });
            }
            if metadata.permissions().readonly() {
                return Err(StoreError::ReadOnlyFile { path: path.to_owned() });
            }
        } else if file.file_name().is_none() {
            return Err(StoreError::NotAFile { path: path.to_owned(), what: "a folder" });
        } else if !folder.is_dir() {
            return Err(StoreError::NoFolder { path: path.to_owned(), folder });
        }
        Ok(Self { path, file, folder })
    }

    fn replace(&self, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<()> {
        let mut temporary = self.temporary_file()?;
        let mut writer = BufWriter::new(&mut temporary);
        write(&mut writer)?;
        writer.flush()?;
        drop(writer);
        temporary.as_file().sync_all()?;
        temporary.persist(&self.file)?;
        self.sync_folder()
    }

    /// In the same folder, because a rename is atomic only within a file system.
    fn temporary_file(&self) -> io::Result<NamedTempFile> {
        let mut builder = Builder::new();
        builder.prefix(".burnmark-").suffix(".tmp");
        #[cfg(unix)]
        builder.permissions(self.permissions());
        builder.tempfile_in(&self.folder)
    }

    /// Those of an ordinary new file (less the user's mask), where temporary files are private otherwise.
    #[cfg(unix)]
    fn permissions(&self) -> fs::Permissions {
        use std::os::unix::fs::PermissionsExt;
        fs::metadata(&self.file).map_or_else(|_| fs::Permissions::from_mode(0o666), |metadata| metadata.permissions())
    }

    /// Makes the rename itself last; only Unix can open a folder for that.
    fn sync_folder(&self) -> io::Result<()> {
        if cfg!(unix) { File::open(&self.folder)?.sync_all() } else { Ok(()) }
    }

    fn error(&self, source: io::Error) -> StoreError {
        let (path, folder) = (self.path.to_owned(), self.folder.clone());
        match source.kind() {
            ErrorKind::NotFound => StoreError::NoFolder { path, folder },
            ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => StoreError::ReadOnlyFolder { path, folder },
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => StoreError::DiskFull { path },
            _ => StoreError::Write { path, source },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::fixtures;

    fn message(result: Result<impl Sized, StoreError>, folder: &Path) -> String {
        let text = result.err().expect("an error").to_string();
        text.replace(&folder.display().to_string(), "[FOLDER]")
    }

    #[test]
    fn comes_back_as_it_was_written() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("results.json");
        check_writable(&path).expect("writable");
        assert!(!path.exists(), "a check leaves no trace");
        for results in [fixtures::planned(), fixtures::measured()] {
            write_atomic(&path, &results).expect("written");
            assert_eq!(read(&path).expect("read"), results);
        }
        let names: Vec<_> = fs::read_dir(folder.path()).expect("listed").collect();
        assert_eq!(names.len(), 1, "no temporary file is left: {names:?}");
    }

    #[cfg(unix)]
    #[test]
    fn keeps_links_and_permissions() {
        use std::os::unix::fs::{PermissionsExt, symlink};
        let folder = tempfile::tempdir().expect("a folder");
        let (file, link) = (folder.path().join("file.json"), folder.path().join("link.json"));
        fs::write(&file, "old").expect("written");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).expect("set");
        symlink(&file, &link).expect("linked");
        write_atomic(&link, &fixtures::planned()).expect("written");
        assert!(fs::symlink_metadata(&link).expect("there").is_symlink());
        assert_eq!(fs::metadata(&file).expect("there").permissions().mode() & 0o777, 0o640);
        assert!(read(&file).is_ok());
    }

    #[test]
    fn says_why_a_path_cannot_be_written() {
        let folder = tempfile::tempdir().expect("a folder");
        let place = folder.path();
        insta::assert_snapshot!(message(check_writable(&place.join("none/results.json")), place), @"results file `[FOLDER]/none/results.json`: folder `[FOLDER]/none` does not exist; create it or choose another path with --output");
        insta::assert_snapshot!(message(check_writable(place), place), @"results file `[FOLDER]`: is a folder, not a file; choose the path of a file with --output");
        insta::assert_snapshot!(message(check_writable(Path::new("/dev/null")), place), @"results file `/dev/null`: is a device or pipe, not a file; choose the path of a file with --output");
        let protected = place.join("protected.json");
        fs::write(&protected, "").expect("written");
        let mut permissions = fs::metadata(&protected).expect("there").permissions();
        permissions.set_readonly(true);
        fs::set_permissions(&protected, permissions).expect("set");
        insta::assert_snapshot!(message(write_atomic(&protected, &fixtures::planned()), place), @"results file `[FOLDER]/protected.json`: is write-protected; change its permissions or choose another path with --output");
        assert_eq!(fs::read_to_string(&protected).expect("read"), "");
    }

    #[test]
    fn names_the_remedy_of_what_the_system_refuses() {
        let target = Target { path: Path::new("a/r.json"), file: "a/r.json".into(), folder: "a".into() };
        let error = |kind: ErrorKind| target.error(kind.into()).to_string();
        insta::assert_snapshot!(error(ErrorKind::PermissionDenied), @"results file `a/r.json`: folder `a` does not allow new files; change its permissions or choose another path with --output");
        insta::assert_snapshot!(error(ErrorKind::StorageFull), @"results file `a/r.json`: the disk is full or the quota is used up; free some space or choose another path with --output (a file from before is unchanged)");
        insta::assert_snapshot!(error(ErrorKind::Interrupted), @"results file `a/r.json`: cannot be written: operation interrupted; choose another path with --output");
    }

    #[test]
    fn says_why_a_file_cannot_be_read() {
        let folder = tempfile::tempdir().expect("a folder");
        let place = folder.path();
        let path = place.join("results.json");
        let attempt = |text: &str| {
            fs::write(&path, text).expect("written");
            message(read(&path), place)
        };
        insta::assert_snapshot!(message(read(&place.join("none.json")), place), @"results file `[FOLDER]/none.json`: does not exist; give the path of the results of an earlier run");
        insta::assert_snapshot!(attempt("{\n  \"schema_version\": 1,\n  \"time"), @"results file `[FOLDER]/results.json`: ends in the middle of line 3; it was cut off: restore a copy, or move it away and run again");
        insta::assert_snapshot!(attempt("{\"schema_version\": 3}"), @"results file `[FOLDER]/results.json`: has schema version 3, this program reads versions 1 to 2; use the program that wrote it or a later one, or move it away and run again");
        insta::assert_snapshot!(attempt("{}"), @"results file `[FOLDER]/results.json`: has schema version null, this program reads versions 1 to 2; use the program that wrote it or a later one, or move it away and run again");
        insta::assert_snapshot!(attempt("{\"schema_version\": 2}"), @"results file `[FOLDER]/results.json`: does not hold results: missing field `timestamp` at line 1 column 21; give the path of the results of an earlier run");
    }
}
