package com.atguigu.yygh.model.hosp;

import com.atguigu.yygh.common.YyghException;
import java.math.BigDecimal;
import java.time.LocalDate;

/** Half a day of a doctor: how many numbers there are, and how many are left. */
public record Schedule(
        String id,
        String hoscode,
        String depcode,
        String doctor,
        String title,
        String skill,
        LocalDate workDate,
        Slot slot,
        int reserved,
        int available,
        BigDecimal fee) {

    public enum Slot {
        MORNING, AFTERNOON
    }

    public Schedule take() {
        if (available == 0) {
            throw YyghException.conflict("号源已满: " + id);
        }
        return withAvailable(available - 1);
    }

    public Schedule giveBack() {
        return available < reserved ? withAvailable(available + 1) : this;
    }

    private Schedule withAvailable(int left) {
        return new Schedule(id, hoscode, depcode, doctor, title, skill, workDate, slot, reserved, left, fee);
    }
}
