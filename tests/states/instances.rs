//! One instance or two, and none.

use crate::scene::Scene;

pub async fn standing_by(mut scene: Scene) -> Scene {
    let reader = scene.start().await;
    let handle = scene.launch().await;
    scene.until(|status| status["state"] == "standing_by").await;
    scene.judge_the_last();
    scene.keep((reader, handle));
    scene
}

pub async fn stopped(mut scene: Scene) -> Scene {
    let handle = scene.start().await;
    handle.shutdown().await.expect("a clean stop");
    scene.keep(handle);
    scene
}

pub async fn gone(mut scene: Scene) -> Scene {
    drop(scene.start().await);
    scene
}
