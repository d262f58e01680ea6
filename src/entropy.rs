//! Randomness of the system.

use outlive_core::Entropy;

use crate::error::Error;

pub(crate) fn random<const N: usize>() -> Result<[u8; N], Error> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|_| Error::Entropy)?;
    Ok(bytes)
}

/// What core draws from, with a seed of its own.
pub(crate) fn fresh_entropy() -> Result<Entropy, Error> {
    Ok(Entropy::from_seed(random()?))
}
