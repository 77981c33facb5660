// In JupyterLab: the frame of a live page. It carries what the page asks for to the kernel, and the answers back. A widget
// may have several views, each with a frame of its own, so a question names its view.
export default {
  render({model, el}) {
    const frame = document.createElement("iframe"), view = String(Math.random());
    frame.className = "explorer-frame";
    frame.style.cssText = "width: 100%; border: 0";
    const tellPage = answer => frame.contentWindow?.postMessage({bench: answer}, "*");
    const answered = answer => {
      if (answer.view !== view) return;
      if (!("page" in answer)) return tellPage(answer);
      frame.setAttribute("sandbox", answer.sandbox);
      frame.title = answer.title;
      frame.style.height = `${answer.height}px`;
      frame.srcdoc = answer.page;
    };
    const asked = event => {
      if (event.source === frame.contentWindow && event.data?.read) model.send({view, read: event.data.read});
    };
    const gone = () => tellPage({refused: "The kernel was restarted or has ended: run the cell again."});
    model.on("msg:custom", answered);
    model.on("comm_live_update", gone);
    addEventListener("message", asked);
    el.append(frame);
    model.send({view});
    return () => {
      model.off("msg:custom", answered);
      model.off("comm_live_update", gone);
      removeEventListener("message", asked);
    };
  },
};
