# docker build -f deploy/platforms.Dockerfile --target map -t lsms-rt:map deploy    (or flywheel).   See README.md.
# What MONAI Deploy and Flywheel look for in an image; XNAT takes lsms-rt:cpu as it is, and xnat.json by its own form.
FROM lsms-rt:cpu AS map
COPY map.json /etc/holoscan/app.json
COPY map_package.json /etc/holoscan/pkg.json
WORKDIR /var/holoscan
# Those who run a MAP start the image: this is the command of map.json.
ENTRYPOINT ["sh", "/opt/lsms-rt/deploy/folder.sh", "/var/holoscan/input", "/var/holoscan/output", "the lesion in the liver"]
CMD []

FROM lsms-rt:cpu AS flywheel
COPY flywheel.json /flywheel/v0/manifest.json
WORKDIR /flywheel/v0
ENTRYPOINT []
