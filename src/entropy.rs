//! Randomness of the system.

use outlive_core::Entropy;

use crate::error::Error;

pub(crate) fn random<const N: usize>() -> Result<[u8; N], Error> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|_| Error::Entropy)?;
    Ok(bytes)
}

/// 32 bytes of the operating system's randomness, for a new [`Identity`](crate::Identity). Keep them, where
/// nobody else can read them: who has them is this peer, and without them nobody is.
///
/// ```
/// # use outlive::{Identity, new_seed};
/// let seed = new_seed()?;
/// let identity = Identity::from_seed(seed);
/// # assert_ne!(new_seed()?, seed);
/// # Ok::<_, outlive::Error>(())
/// ```
///
/// # Errors
/// [`Error::Entropy`] if the system has none.
pub fn new_seed() -> Result<[u8; 32], Error> {
    random()
}

/// What core draws from, with a seed of its own.
pub(crate) fn fresh_entropy() -> Result<Entropy, Error> {
    Ok(Entropy::from_seed(random()?))
}
