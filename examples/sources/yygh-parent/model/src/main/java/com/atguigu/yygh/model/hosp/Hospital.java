package com.atguigu.yygh.model.hosp;

/** A hospital; {@code level} is a code of the dictionary {@code HosLevel}, {@code levelName} its name. */
public record Hospital(
        String hoscode,
        String name,
        String level,
        String levelName,
        String city,
        String address,
        String intro,
        int bookingDays,
        String releaseTime) {
    public Hospital withLevelName(String resolved) {
        return new Hospital(hoscode, name, level, resolved, city, address, intro, bookingDays, releaseTime);
    }
}
