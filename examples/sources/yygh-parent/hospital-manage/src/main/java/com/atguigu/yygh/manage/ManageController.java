package com.atguigu.yygh.manage;

import com.atguigu.yygh.common.YyghException;
import com.atguigu.yygh.hosp.client.HospApi;
import com.atguigu.yygh.model.hosp.Department;
import com.atguigu.yygh.model.hosp.Hospital;
import com.atguigu.yygh.model.hosp.Schedule;
import java.util.List;
import org.springframework.http.HttpStatus;
import org.springframework.web.bind.annotation.GetMapping;
import org.springframework.web.bind.annotation.PathVariable;
import org.springframework.web.bind.annotation.PostMapping;
import org.springframework.web.bind.annotation.PutMapping;
import org.springframework.web.bind.annotation.RequestBody;
import org.springframework.web.bind.annotation.RequestMapping;
import org.springframework.web.bind.annotation.ResponseStatus;
import org.springframework.web.bind.annotation.RestController;

@RestController
@RequestMapping("/api/manage")
class ManageController {

    private final HospitalSets sets;
    private final HospApi hospitals;

    ManageController(HospitalSets sets, HospApi hospitals) {
        this.sets = sets;
        this.hospitals = hospitals;
    }

    record Overview(HospitalSet set, Hospital hospital, List<Department> departments) {
    }

    record Access(boolean open) {
    }

    @GetMapping("/hospital-sets")
    List<HospitalSet> sets() {
        return sets.all();
    }

    @GetMapping("/hospital-sets/{hoscode}")
    Overview overview(@PathVariable String hoscode) {
        return new Overview(sets.get(hoscode), hospitals.hospital(hoscode), hospitals.departments(hoscode));
    }

    @PutMapping("/hospital-sets/{hoscode}/access")
    HospitalSet access(@PathVariable String hoscode, @RequestBody Access access) {
        return sets.access(hoscode, access.open());
    }

    @PostMapping("/schedules")
    @ResponseStatus(HttpStatus.CREATED)
    Schedule publish(@RequestBody Schedule schedule) {
        if (!sets.get(schedule.hoscode()).open()) {
            throw YyghException.conflict("医院接口已锁定: " + schedule.hoscode());
        }
        return hospitals.publish(schedule);
    }
}
