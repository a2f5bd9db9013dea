use crate::JournalError;
use std::{io, path::Path, sync::Arc};

/// A folder of files, as much of it as a journal needs: the seam between the
/// journal and either a real folder ([`crate::FileDisk`]) or a simulated one
/// that can lose power ([`crate::SimDisk`]).
///
/// Changes to the folder itself (create, rename, remove) are durable only after
/// [`Disk::sync_folder`], changes to a file only after [`DiskFile::sync`].
pub trait Disk: Send + Sync {
    /// The folder, for messages.
    fn folder(&self) -> &Path;

    /// Takes the folder for this process until the disk is dropped, creating it when missing.
    ///
    /// # Errors
    /// [`JournalError::InUse`] when another holder has it, [`JournalError::Io`] otherwise.
    fn lock(&self) -> Result<(), JournalError>;

    /// The names of all entries, in any order; none for a folder that does not exist.
    ///
    /// # Errors
    /// Whatever the system says.
    fn list(&self) -> io::Result<Vec<String>>;

    /// Opens an existing file for reading and, where the disk allows, writing.
    ///
    /// # Errors
    /// Whatever the system says, for one that there is no such file.
    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>>;

    /// Makes a new empty file.
    ///
    /// # Errors
    /// Whatever the system says, for one that the file exists.
    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>>;

    /// Gives a file another name, replacing what has that name.
    ///
    /// # Errors
    /// Whatever the system says.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Removes a file.
    ///
    /// # Errors
    /// Whatever the system says.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Makes all creations, renames and removals so far durable.
    ///
    /// # Errors
    /// Whatever the system says; which of them are durable is then unknown.
    fn sync_folder(&self) -> io::Result<()>;
}

/// One open file of a [`Disk`].
pub trait DiskFile: Send + Sync {
    /// Its size in bytes.
    ///
    /// # Errors
    /// Whatever the system says.
    fn size(&self) -> io::Result<u64>;

    /// Fills `bytes` from `offset` on.
    ///
    /// # Errors
    /// Whatever the system says; `UnexpectedEof` when the file ends before that.
    fn read_at(&self, offset: u64, bytes: &mut [u8]) -> io::Result<()>;

    /// Writes all of `bytes` at `offset`, with one system call where the system takes them at once.
    ///
    /// # Errors
    /// Whatever the system says; some of the bytes may have been written.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;

    /// Cuts the file off at `size` bytes.
    ///
    /// # Errors
    /// Whatever the system says.
    fn truncate(&self, size: u64) -> io::Result<()>;

    /// Makes the content and the size durable (`fdatasync`).
    ///
    /// # Errors
    /// Whatever the system says; what of the unsynced content is durable is then
    /// unknown, and asking again would not tell.
    fn sync(&self) -> io::Result<()>;
}
