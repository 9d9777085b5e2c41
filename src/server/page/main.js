document.title = "Runahead";
