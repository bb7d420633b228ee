"use strict";
// The camera: a live preview over the canvas, until a picture is taken or the camera is closed.

class Camera {
  // `onPicture` receives a canvas; `onProblem` receives a sentence.
  constructor(preview, onPicture, onProblem) {
    Object.assign(this, { preview, onPicture, onProblem, stream: null });
    this.video = preview.querySelector("video");
    preview.querySelector(".take").onclick = () => this.take();
    preview.querySelector(".close").onclick = () => this.close();
  }

  // Whether the browser names a camera: it does so before it is allowed to use one.
  static async exists() {
    const devices = (await navigator.mediaDevices?.enumerateDevices?.().catch(() => [])) ?? [];
    return devices.some((device) => device.kind === "videoinput");
  }

  async open() {
    if (this.stream || this.isOpening) return;
    this.isOpening = true;
    try {
      this.stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
      this.video.srcObject = this.stream;
      this.preview.hidden = false;
      await this.video.play();
      this.preview.querySelector(".take").focus();
    } catch (error) {
      this.close();
      const reason = {
        NotAllowedError:
          "The browser does not allow this page to use the camera. Some browsers refuse it to every page " +
          "that is opened from a file: take a picture with another program, and choose its file.",
        NotFoundError: "No camera was found.",
        NotReadableError: "The camera cannot be used: another program may be using it.",
      };
      this.onProblem(reason[error.name] ?? `The camera cannot be used: ${error.message}`);
    } finally {
      this.isOpening = false;
    }
  }

  take() {
    const { videoWidth, videoHeight } = this.video;
    if (!videoWidth) return; // no picture has arrived yet
    const picture = toCanvas(this.video, videoWidth, videoHeight);
    this.close();
    this.onPicture(picture);
  }

  close() {
    for (const track of this.stream?.getTracks() ?? []) track.stop();
    this.stream = this.video.srcObject = null;
    this.preview.hidden = true;
  }
}
