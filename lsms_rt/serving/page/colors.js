// Colors of the sentences: those of Okabe and Ito that tell apart with any color vision, and stand out on a dark image.

export const COLORS = [
  { name: "orange", rgb: [230, 159, 0] },
  { name: "sky blue", rgb: [86, 180, 233] },
  { name: "green", rgb: [0, 158, 115] },
  { name: "yellow", rgb: [240, 228, 66] },
  { name: "vermilion", rgb: [213, 94, 0] },
  { name: "purple", rgb: [204, 121, 167] },
];
