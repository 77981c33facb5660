// In JupyterLab: the frame of a live page. It carries what the page asks for to the kernel, and the answers back.
export default {
  render({model, el}) {
    const frame = document.createElement("iframe");
    frame.className = "explorer-frame";
    frame.style.cssText = "width: 100%; border: 0";
    const answered = answer => {
      if (!("page" in answer)) return frame.contentWindow?.postMessage({bench: answer}, "*");
      frame.setAttribute("sandbox", answer.sandbox);
      frame.title = answer.title;
      frame.style.height = `${answer.height}px`;
      frame.srcdoc = answer.page;
    };
    const asked = event => {
      if (event.source === frame.contentWindow && event.data?.read) model.send({read: event.data.read});
    };
    model.on("msg:custom", answered);
    addEventListener("message", asked);
    el.append(frame);
    model.send({});
    return () => {
      model.off("msg:custom", answered);
      removeEventListener("message", asked);
    };
  },
};
