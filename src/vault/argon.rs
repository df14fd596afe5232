//! Argon2id for passwords and phrases: away from the threads that serve connections, and a few at a
//! time.

use argon2::{
    Algorithm, Argon2, Params, Version,
    password_hash::{PasswordHasher, PasswordVerifier, phc::PasswordHash},
};
use std::sync::Arc;
use tokio::{sync::Semaphore, task::spawn_blocking};
use zeroize::Zeroizing;

/// Runs at one time: each takes 19 MiB.
pub const RUNS: usize = 2;
/// Memory in KiB, passes and lanes.
const COST: (u32, u32, u32) = (19 * 1024, 2, 1);

/// A secret could not be hashed, or a stored hash not be read.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("a secret could not be hashed")]
pub struct HashError;

/// Hashes secrets, [`RUNS`] at a time. Its clones share the turns.
#[derive(Debug, Clone)]
pub struct Hasher(Arc<Semaphore>);

impl Default for Hasher {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(RUNS)))
    }
}

impl Hasher {
    /// The PHC string of a new secret. `place` is held until the work has ended.
    ///
    /// # Errors
    /// [`HashError`].
    pub async fn hash(
        &self,
        secret: Zeroizing<String>,
        place: impl Send + 'static,
    ) -> Result<String, HashError> {
        self.run(place, move || {
            let hash: PasswordHash =
                argon2()?.hash_password(secret.as_bytes()).map_err(|_| HashError)?;
            Ok(hash.to_string())
        })
        .await
    }

    /// True if the secret is the one behind the PHC string. `place` is held until the work has ended.
    ///
    /// # Errors
    /// [`HashError`].
    pub async fn matches(
        &self,
        secret: Zeroizing<String>,
        hash: String,
        place: impl Send + 'static,
    ) -> Result<bool, HashError> {
        self.run(place, move || {
            let hash = PasswordHash::new(&hash).map_err(|_| HashError)?;
            Ok(argon2()?.verify_password(secret.as_bytes(), &hash).is_ok())
        })
        .await
    }

    /// Turn and place end with the work, also where the caller has gone away.
    async fn run<T: Send + 'static>(
        &self,
        place: impl Send + 'static,
        work: impl FnOnce() -> Result<T, HashError> + Send + 'static,
    ) -> Result<T, HashError> {
        let turn = Arc::clone(&self.0).acquire_owned().await.map_err(|_| HashError)?;
        let task = spawn_blocking(move || {
            let result = work();
            drop((turn, place));
            result
        });
        task.await.map_err(|_| HashError)?
    }
}

fn argon2() -> Result<Argon2<'static>, HashError> {
    let (memory, passes, lanes) = COST;
    let params = Params::new(memory, passes, lanes, None).map_err(|_| HashError)?;
    Ok(Argon2::new(Algorithm::Argon2id, Version::V0x13, params))
}
