//! A small disk of one's own: ext4 in a file, behind a loop device. It can run full, fail and lose
//! its power.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

/// A mounted disk; unmounted with this value.
#[derive(Debug)]
pub struct Disk {
    image: PathBuf,
    pub mount: PathBuf,
    /// `/dev/loopN`
    device: String,
}

impl Disk {
    /// A new disk of so many MiB; what is not written takes no space in its image.
    pub fn make(image: &Path, mount: &Path, mib: u64) -> Self {
        let file = fs::File::create(image).expect("an image");
        file.set_len(mib << 20).expect("its length");
        run("mkfs.ext4", &["-q", "-F", "-m", "0", &text(image)]);
        let device = Self::attach(image, mount);
        Self { image: image.to_owned(), mount: mount.to_owned(), device }
    }

    /// Mounts the image; gives its device.
    fn attach(image: &Path, mount: &Path) -> String {
        fs::create_dir_all(mount).expect("a mount point");
        let device = run("losetup", &["--find", "--show", &text(image)]).trim().to_owned();
        let mounted = attempt("mount", &["-t", "ext4", &device, &text(mount)]);
        // From here on the device goes with the mount.
        run("losetup", &["-d", &device]);
        mounted.expect("mounted");
        device
    }

    /// Somebody else takes all space but so much.
    pub fn fill(&self, leave: u64) {
        let path = self.mount.join("filler");
        let file = fs::File::options().append(true).create(true).open(path).expect("filler");
        let flags = rustix::fs::FallocateFlags::empty();
        let mut step = self.free();
        while step > 4096 && self.free() > leave {
            let length = file.metadata().expect("metadata").len();
            step = step.min(self.free().saturating_sub(leave));
            // The file's own map takes a few blocks, and others write at the same time.
            if rustix::fs::fallocate(&file, flags, length, step).is_err() {
                step /= 2;
            }
        }
    }

    /// Gives all of it back.
    pub fn empty(&self) {
        fs::remove_file(self.mount.join("filler")).expect("removed");
    }

    pub fn free(&self) -> u64 {
        let disk = rustix::fs::statvfs(&self.mount).expect("statvfs");
        disk.f_bavail * disk.f_frsize
    }

    /// The disk fails: whatever is written from now on is refused, and what it had not yet received
    /// is lost.
    pub fn fail(&self) {
        run("mount", &["-o", "remount,abort", &text(&self.mount)]);
    }

    /// Nobody has files open for writing here.
    pub fn read_only(&self, on: bool) {
        let options = if on { "remount,ro" } else { "remount,rw" };
        run("mount", &["-o", options, &text(&self.mount)]);
    }

    /// Unmounts and mounts again; the journal is replayed.
    pub fn again(&mut self) {
        run("umount", &[&text(&self.mount)]);
        self.device = Self::attach(&self.image, &self.mount);
    }

    /// What the device has received so far becomes the disk's content: everything that only the
    /// system's memory held is lost. `stop` ends whoever uses the disk; until then they are to stand
    /// still.
    pub fn cut(&mut self, stop: impl FnOnce()) {
        let copy = self.image.with_extension("cut");
        loop {
            let before = self.at_rest();
            let (from, to) = (text(&self.image), text(&copy));
            run("cp", &["--sparse=always", "--reflink=auto", &from, &to]);
            if self.at_rest() == before {
                break;
            }
        }
        stop();
        run("umount", &[&text(&self.mount)]);
        fs::rename(&copy, &self.image).expect("renamed");
        self.device = Self::attach(&self.image, &self.mount);
    }

    /// Waits until the device has nothing to do; says what it has done so far
    /// (`Documentation/block/stat.rst`: requests and sectors written, requests in flight).
    fn at_rest(&self) -> (u64, u64) {
        let name = self.device.rsplit('/').next().expect("a name");
        let look = || {
            let stat = fs::read_to_string(format!("/sys/block/{name}/stat")).expect("stat");
            let field = |n: usize| stat.split_whitespace().nth(n).and_then(|f| f.parse().ok());
            let field = |n| field(n).expect("a number");
            (field(4), field(6), field(8))
        };
        super::wait_for("a device at rest", || {
            let (requests, sectors, busy): (u64, u64, u64) = look();
            std::thread::park_timeout(Duration::from_millis(5));
            (busy == 0 && look() == (requests, sectors, 0)).then_some((requests, sectors))
        })
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if attempt("umount", &[&text(&self.mount)]).is_err() {
            // Somebody's files are still open: it goes when they are closed.
            drop(attempt("umount", &["-l", &text(&self.mount)]));
        }
    }
}

fn text(path: &Path) -> String {
    path.to_str().expect("UTF-8").to_owned()
}

fn run(program: &str, arguments: &[&str]) -> String {
    attempt(program, arguments).unwrap_or_else(|why| {
        panic!(
            "{why}\n(this test needs root, loop devices (/dev/loop-control), mount and e2fsprogs)"
        )
    })
}

fn attempt(program: &str, arguments: &[&str]) -> Result<String, String> {
    let said = |e: std::io::Error| format!("{program} {arguments:?}: {e}");
    let output = Command::new(program).args(arguments).output().map_err(said)?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(format!("{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr)))
}
