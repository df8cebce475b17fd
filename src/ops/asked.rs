//! Finds the pipeline that a request is about: the only one, or the one in its path.

use std::{
    future::{Ready, ready},
    ops::Deref,
};

use actix_web::{
    FromRequest, HttpRequest,
    dev::Payload,
    error::{Error, ErrorNotFound},
    web::Data,
};

use super::OpsState;

/// Name of the path's part that names a pipeline.
pub(super) const PIPELINE: &str = "pipeline";

/// Finds a pipeline by its name.
pub(super) type FindPipeline = dyn Fn(&str) -> Option<Data<OpsState>> + Send + Sync;

/// The state of the pipeline that was asked about.
pub(super) struct Asked(pub Data<OpsState>);

impl Deref for Asked {
    type Target = Data<OpsState>;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl FromRequest for Asked {
    type Error = Error;
    type Future = Ready<Result<Self, Error>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        ready(find(request).map(Asked))
    }
}

fn find(request: &HttpRequest) -> Result<Data<OpsState>, Error> {
    let Some(find) = request.app_data::<Data<FindPipeline>>() else {
        let only = request.app_data::<Data<OpsState>>();
        return only.cloned().ok_or_else(|| ErrorNotFound(""));
    };
    let name = request.match_info().get(PIPELINE).unwrap_or_default();
    find(name).ok_or_else(|| ErrorNotFound("this pipeline is not there, or has not started yet"))
}
